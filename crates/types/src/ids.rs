use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random ID, sortable by the time of its making (UUID version 7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
            /// From its 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
            /// Its 16 bytes, as they stand in the formats.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// A protected machine: ours, never a MAC address, host name or a hypervisor's ID (design
    /// section 8, RQ-AG-1).
    MachineId
);
uuid_id!(
    /// One running copy of a machine: authority is granted to an instance, not to what is on a disk
    /// (trap T-11).
    InstanceId
);
uuid_id!(
    /// A disk of a protected machine, stable across renames and re-attachment.
    DiskId
);
uuid_id!(
    /// Image and log of one protected machine, all its disks, on one master target.
    ReplicaId
);
uuid_id!(
    /// A writable child of a view, with its own log.
    BranchId
);
uuid_id!(
    /// One log on disk (the log of a replica, or of a branch).
    LogId
);
uuid_id!(
    /// A registered role: agent, process server, master target or an operator's client.
    NodeId
);
uuid_id!(
    /// A job of the configuration server.
    JobId
);
uuid_id!(
    /// A point of several machines at once (trap T-19).
    GroupPointId
);
uuid_id!(
    /// An order from the configuration server to a node: carried out at most once.
    OrderId
);
