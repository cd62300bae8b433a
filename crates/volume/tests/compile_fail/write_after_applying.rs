//! A branch's log that was turned into one that takes frames can't be written any more.

fn main() {}

fn follow(branch: landfall_volume::BranchLog) {
    let applied: landfall_volume::AppliedLog = branch.into_applied();
    let again = branch.into_applied();
    drop((applied, again));
}
