//! A log has one holder: neither type can be copied to have both at once.

fn main() {}

fn both(branch: &landfall_volume::BranchLog, applied: &landfall_volume::AppliedLog) {
    let second: landfall_volume::BranchLog = branch.clone();
    let other: landfall_volume::AppliedLog = applied.clone();
    drop((second, other));
}
