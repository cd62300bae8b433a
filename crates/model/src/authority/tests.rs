use super::*;

fn holder(number: u64, side: Side, branch: bool) -> Holder {
    let epoch = Epoch { number, id: EpochId::new(number * 1000), parent: None };
    Holder { epoch, side, branch: branch.then(BranchId::generate) }
}

fn words() -> Change {
    Change::Attested { by: "op".to_owned(), words: "it burns".to_owned() }
}

/// Guards P6, T-17: one receipt, one promotion; the crash between them resumes with the reserved
/// epoch.
#[test]
fn t17_a_receipt_is_used_up_by_the_first_reservation() {
    let recovery = holder(2, Side::Recovery, true);
    let held = Authority::Held { holder: recovery };
    let demoted =
        Change::Demoted { epoch: recovery.epoch.id, lsn: Lsn::new(9), chain: Chain::ROOT };
    let vacant = next(&held, &demoted, 2).expect("demoted");
    assert_eq!(vacant.holder(), None);
    let home = holder(3, Side::Home, false);
    let promoting = next(&vacant, &Change::Reserved { holder: home }, 2).expect("reserved");
    let second = Change::Reserved { holder: holder(4, Side::Home, false) };
    assert_eq!(next(&promoting, &second, 3), Err(AuthorityError::WrongState));
    assert_eq!(next(&promoting, &Change::GivenUp, 3), Err(AuthorityError::WrongState));
    let other = Change::Promoted { epoch: EpochId::new(1) };
    assert_eq!(next(&promoting, &other, 3).map_err(|e| e.class()), Err(Class::Fenced));
    let done = next(&promoting, &Change::Promoted { epoch: home.epoch.id }, 3).expect("promoted");
    assert_eq!(done.holder(), Some(&home));
}

/// Guards P6, T-17: a number that was given once, even in a promotion that was refused, never comes
/// again.
#[test]
fn t17_numbers_are_never_used_twice() {
    let held = Authority::Held { holder: holder(1, Side::Home, false) };
    let vacant = next(&held, &words(), 1).expect("attested");
    let again = Change::Reserved { holder: holder(2, Side::Recovery, true) };
    let error = next(&vacant, &again, 2).expect_err("number 2 was given before");
    assert_eq!(error, AuthorityError::UsedNumber { new: 2, highest: 2 });
}

#[test]
fn unplanned_without_words_and_changes_out_of_place_are_refused() {
    let home = holder(1, Side::Home, false);
    let held = Authority::Held { holder: home };
    let silent = Change::Attested { by: "op".to_owned(), words: "  ".to_owned() };
    assert_eq!(next(&held, &silent, 1), Err(AuthorityError::NoWords));
    let recovery = holder(2, Side::Recovery, true);
    for change in [Change::Reserved { holder: recovery }, Change::GivenUp] {
        assert_eq!(next(&held, &change, 1), Err(AuthorityError::WrongState), "without proof");
    }
    let vacant = next(&held, &words(), 1).expect("attested");
    let same = Change::Reserved { holder: holder(2, Side::Home, false) };
    assert_eq!(next(&vacant, &same, 1), Err(AuthorityError::SameSide));
    assert_eq!(next(&vacant, &Change::GivenUp, 1), Ok(held));
}

#[test]
fn another_point_is_another_branch_of_the_same_replica() {
    let first = holder(2, Side::Recovery, true);
    let held = Authority::Held { holder: first };
    let second = holder(3, Side::Recovery, true);
    let promoting = next(&held, &Change::ChangeReserved { holder: second }, 2).expect("reserved");
    let refused = next(&promoting, &Change::Refused { epoch: second.epoch.id }, 3);
    assert_eq!(refused, Ok(held.clone()));
    let elsewhere = Change::ChangeReserved { holder: holder(4, Side::Home, false) };
    assert_eq!(next(&held, &elsewhere, 3), Err(AuthorityError::SameSide));
}

#[test]
fn a_resource_repeats_the_same_order_and_refuses_lower_and_forged_epochs() {
    let epoch = |number, id| Epoch { number, id: EpochId::new(id), parent: None };
    let held = epoch(5, 50);
    assert_eq!(admit(&held, &epoch(6, 60)), Admission::New);
    assert_eq!(admit(&held, &epoch(5, 50)), Admission::Repeat);
    assert_eq!(admit(&held, &epoch(5, 51)), Admission::Fenced, "the same number from elsewhere");
    assert_eq!(admit(&held, &epoch(4, 40)), Admission::Fenced);
}
