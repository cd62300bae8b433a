use std::fmt;

macro_rules! named {
    ($(#[$doc:meta])* $type:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)*
        }
        impl $type {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// As it stands in the API, the command line and the documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// What an operator asks of a machine.
    Command {
        /// Begin to replicate.
        Protect = "protect",
        /// Make a test branch.
        TestFailover = "test-failover",
        /// Throw a test branch away.
        TestCleanUp = "test-clean-up",
        /// Give authority to the recovery site.
        Failover = "failover",
        /// Another recovery point.
        ChangePoint = "change-point",
        /// Make it final.
        Commit = "commit",
        /// Replicate towards home.
        Reprotect = "reprotect",
        /// Give authority back to home.
        Failback = "failback",
        /// Give up what is under way, while nothing is promoted.
        Cancel = "cancel",
        /// Stop replicating for a while.
        Pause = "pause",
        /// Go on after a pause.
        Resume = "resume",
        /// Put a named recovery point.
        Mark = "mark",
        /// Discard divergence by name.
        DiscardDivergence = "discard-divergence",
        /// Stop protecting.
        Disable = "disable",
    }
}

named! {
    /// What has happened to a machine.
    Event {
        /// The recovery site has a durable legal point of the present epoch.
        PointDurable = "point-durable",
        /// The branch of the recovery site has authority.
        Promoted = "promoted",
        /// A failover was given up before anything was promoted.
        FailoverGivenUp = "failover-given-up",
        /// The choice of point is final, or home is final.
        Committed = "committed",
        /// Home has a durable legal point.
        HomePointDurable = "home-point-durable",
        /// The way home was given up.
        ReprotectGivenUp = "reprotect-given-up",
        /// Home's disks are the machine's own, and home has authority.
        Released = "released",
        /// A failback was given up before anything was promoted.
        FailbackGivenUp = "failback-given-up",
        /// Protection has ended.
        Disabled = "disabled",
    }
}

/// Everything that can move a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Input {
    /// Asked for.
    Command(Command),
    /// Happened.
    Event(Event),
}

impl Input {
    /// Every input, commands first.
    pub fn all() -> impl Iterator<Item = Self> {
        let commands = Command::ALL.iter().copied().map(Self::Command);
        commands.chain(Event::ALL.iter().copied().map(Self::Event))
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => command.fmt(f),
            Self::Event(event) => event.fmt(f),
        }
    }
}

impl From<Command> for Input {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

impl From<Event> for Input {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}
