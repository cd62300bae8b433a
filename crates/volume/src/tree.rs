//! How logs hang together, and which records make up the content at a position. Pure; no storage.

use landfall_types::{LogId, Lsn};
use serde::{Deserialize, Serialize};

/// One log and the one that it forked from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogNode {
    /// The log.
    pub(crate) log: LogId,
    /// The log that it forked from; none where nothing but the image lies below.
    pub(crate) parent: Option<LogId>,
    /// The position before its first record.
    pub(crate) fork: Lsn,
    /// Its records are gone, the image is past them; the node stays while a child names it, so that
    /// what two children share can still be told.
    pub(crate) dropped: bool,
}

/// Records of one log, as part of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Level {
    /// Which log.
    pub(crate) log: LogId,
    /// From behind here …
    pub(crate) after: Lsn,
    /// … up to and including here.
    pub(crate) through: Lsn,
}

/// The node of a log.
pub(crate) fn node(nodes: &[LogNode], log: LogId) -> Option<&LogNode> {
    nodes.iter().find(|node| node.log == log)
}

/// The records that lead from the image at `folded` to position `at` of `log`, oldest level first;
/// levels without records are left out. `None` when the logs in between are not kept.
pub(crate) fn levels(nodes: &[LogNode], log: LogId, at: Lsn, folded: Lsn) -> Option<Vec<Level>> {
    let mut out = Vec::new();
    let mut level = node(nodes, log)?;
    let mut through = at;
    loop {
        if level.dropped {
            return None;
        }
        let after = level.fork.max(folded);
        if through > after {
            out.push(Level { log: level.log, after, through });
        }
        if level.fork <= folded {
            out.reverse();
            return Some(out);
        }
        through = through.min(level.fork);
        level = node(nodes, level.parent?)?;
    }
}

/// The last position that position `at` of `log` shares with the newest position of `main`;
/// [`Lsn::ZERO`] when the two have nothing in common.
pub(crate) fn shared_through(nodes: &[LogNode], main: LogId, log: LogId, at: Lsn) -> Lsn {
    let on_main = path(nodes, main, Lsn::MAX);
    let common = path(nodes, log, at).into_iter().find_map(|(log, through)| {
        on_main
            .iter()
            .find(|(other, _)| *other == log)
            .map(|(_, main_through)| through.min(*main_through))
    });
    common.unwrap_or(Lsn::ZERO)
}

/// What is left of the logs when only the contents at the ends of `heads` are wanted: logs that
/// none of these needs above the image are dropped, and forgotten once no child names them.
pub(crate) fn collect(nodes: &[LogNode], heads: &[LogId], folded: Lsn) -> Vec<LogNode> {
    let mut needed = Vec::new();
    for head in heads {
        let mut next = Some(*head);
        while let Some(level) = next.and_then(|log| node(nodes, log)) {
            needed.push(level.log);
            next = if level.fork > folded { level.parent } else { None };
        }
    }
    let named = |log: LogId| {
        nodes.iter().any(|node| node.parent == Some(log) && needed.contains(&node.log))
    };
    let keep = |node: &LogNode| match (needed.contains(&node.log), named(node.log)) {
        (true, _) => Some(*node),
        (false, true) => Some(LogNode { parent: None, dropped: true, ..*node }),
        (false, false) => None,
    };
    nodes.iter().filter_map(keep).collect()
}

/// The logs from `log` down to the image with the last position that the path uses of each, newest
/// first.
pub(crate) fn path(nodes: &[LogNode], log: LogId, at: Lsn) -> Vec<(LogId, Lsn)> {
    let mut out = Vec::new();
    let mut through = at;
    let mut next = Some(log);
    while let Some(level) = next.and_then(|log| node(nodes, log)) {
        out.push((level.log, through));
        through = through.min(level.fork);
        next = level.parent;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> LogId {
        LogId::from_bytes([n; 16])
    }
    fn lsn(n: u64) -> Lsn {
        Lsn::new(n)
    }
    fn tree() -> Vec<LogNode> {
        vec![
            LogNode { log: id(1), parent: None, fork: lsn(0), dropped: false },
            LogNode { log: id(2), parent: Some(id(1)), fork: lsn(10), dropped: false },
            LogNode { log: id(3), parent: Some(id(1)), fork: lsn(20), dropped: false },
            LogNode { log: id(4), parent: Some(id(2)), fork: lsn(15), dropped: false },
        ]
    }

    #[test]
    fn a_path_goes_down_to_the_image() {
        let level =
            |log, after, through| Level { log: id(log), after: lsn(after), through: lsn(through) };
        let levels = |log, at, folded| levels(&tree(), id(log), lsn(at), lsn(folded));
        assert_eq!(
            levels(4, 18, 0),
            Some(vec![level(1, 0, 10), level(2, 10, 15), level(4, 15, 18)])
        );
        assert_eq!(levels(4, 18, 12), Some(vec![level(2, 12, 15), level(4, 15, 18)]));
        assert_eq!(levels(4, 18, 18), Some(vec![]));
        // A position of the parent, asked for by the child's name.
        assert_eq!(levels(2, 7, 3), Some(vec![level(1, 3, 7)]));
        assert_eq!(levels(9, 1, 0), None);
    }

    #[test]
    fn a_dropped_parent_is_not_missed_once_the_image_is_past_it() {
        let nodes = [LogNode { log: id(2), parent: None, fork: lsn(10), dropped: false }];
        assert_eq!(levels(&nodes, id(2), lsn(12), lsn(10)).map(|levels| levels.len()), Some(1));
        assert_eq!(levels(&nodes, id(2), lsn(12), lsn(9)), None);
    }

    #[test]
    fn logs_that_no_head_needs_are_dropped() {
        let kept = |heads: &[u8], folded| {
            let heads: Vec<LogId> = heads.iter().map(|head| id(*head)).collect();
            let kept = collect(&tree(), &heads, lsn(folded));
            kept.into_iter().map(|node| (node.log, node.dropped)).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[3], 5), [(id(1), false), (id(3), false)]);
        // The image stands at the fork: the parent's records are not needed, its name still is.
        assert_eq!(kept(&[3], 20), [(id(1), true), (id(3), false)]);
        assert_eq!(kept(&[4], 12), [(id(1), true), (id(2), false), (id(4), false)]);
        assert_eq!(kept(&[4], 15), [(id(2), true), (id(4), false)]);
    }

    #[test]
    fn what_two_positions_share() {
        let shared = |main, log, at| shared_through(&tree(), id(main), id(log), lsn(at)).get();
        assert_eq!(shared(1, 1, 5), 5);
        assert_eq!(shared(1, 2, 12), 10);
        assert_eq!(shared(3, 1, 30), 20, "the old log's tail leaves the branch at its fork");
        assert_eq!(shared(3, 4, 18), 10);
        assert_eq!(shared(4, 2, 18), 15);
        assert_eq!(shared(3, 3, 25), 25);
    }
}
