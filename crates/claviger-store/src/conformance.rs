//! The suite that every store runs. Time is an argument of every method, so no check waits for a
//! clock.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a check that fails panics: this module is a test that other crates run"
)]

mod archive;
mod background;
mod ending;
mod fixtures;
mod logins;
mod revocations;
mod rows;
mod shared_entries;
mod slots;
mod suspicions;

use std::{pin::Pin, sync::Arc};

use crate::archive::Archive;

/// Makes the stores that the suite runs on.
pub trait Harness {
    /// Makes an empty store that shares nothing with earlier ones.
    fn fresh(&self) -> impl Future<Output = Arc<dyn Archive>> + Send;
}

type Check = fn(Arc<dyn Archive>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! checks {
    ($($module:ident: $($check:ident)*;)*) => {
        [$($((stringify!($check), (|store| Box::pin($module::$check(store))) as Check),)*)*]
    };
}

/// Runs every check, each on a store of its own. Needs a Tokio runtime with several threads: the
/// checks of races need real concurrency.
///
/// # Panics
/// If a check fails; the message names all failed checks. The messages of a check of an invariant
/// begin with the invariant's name.
pub async fn conformance(harness: &impl Harness) {
    let mut failed = Vec::new();
    for (name, check) in checks() {
        let store = harness.fresh().await;
        if let Err(error) = tokio::spawn(check(store)).await {
            failed.push(format!("- {}: {}", name.replace('_', " "), message(error)));
        }
    }
    assert!(failed.is_empty(), "{} checks of the store failed:\n{}", failed.len(), failed.join("\n"));
}

fn checks() -> impl IntoIterator<Item = (&'static str, Check)> {
    checks! {
        rows:
            every_field_comes_back_as_it_went_in
            every_end_reason_comes_back
            an_unknown_row_is_none
            an_id_is_taken_once
            a_change_is_written_if_its_version_follows
            a_change_of_a_missing_row_is_a_conflict
            one_of_two_refreshes_of_a_row_wins
            each_kind_of_change_writes_its_columns_and_no_others
            one_of_many_writers_wins
            versions_never_go_back_for_a_reader
            an_ended_row_never_changes;
        ending:
            devices_are_listed_last_used_first
            a_sign_in_replaces_the_one_before_it
            a_sign_in_ends_what_is_over_the_limit
            a_sign_in_owes_what_it_ends
            the_end_of_all_takes_exactly_the_selection
            the_end_of_all_owes_each_live_pair_once
            the_end_of_all_and_a_sign_in_leave_no_half
            the_end_of_all_and_a_change_leave_no_half
            two_ends_of_all_end_each_row_once;
        background:
            a_use_moves_forward_only
            a_use_changes_nothing_else
            a_use_of_an_ended_row_is_passed_over
            a_use_and_a_change_lose_nothing_of_each_other
            overdue_rows_are_the_idle_and_the_old
            distrusted_rows_come_youngest_first
            claims_are_counted_by_whether_their_outcome_is_known
            a_purge_takes_tombstones_only
            a_store_that_works_says_so;
        logins:
            a_state_is_used_up_once
            one_of_many_callbacks_wins
            expired_states_are_forgotten;
        revocations:
            a_revocation_comes_back_as_it_went_in
            an_end_owes_with_it_or_not_at_all
            a_lease_keeps_others_away
            what_a_clock_that_was_ahead_put_off_is_due_at_once
            the_longest_due_come_first
            only_the_holder_acknowledges
            only_the_holder_puts_off
            many_takers_share_without_overlap
            the_backlog_counts_what_is_owed
            what_is_owed_outlives_its_row;
        slots:
            slots_without_sessions_are_passed_over
            the_slots_due_longest_come_first
            a_leased_slot_is_nobody_elses
            a_slot_of_a_clock_that_was_ahead_is_due_at_once
            many_takers_of_slots_share_without_overlap
            a_slot_is_read_page_by_page
            many_rows_are_written_each_by_its_own_version
            one_of_many_proofs_wins
            a_census_counts_by_state
            rows_are_counted_by_how_their_blobs_begin;
        suspicions:
            a_suspicion_comes_back_as_it_went_in
            the_same_word_is_noted_once
            suspicions_are_leased
            many_takers_of_suspicions_share_without_overlap
            closed_suspicions_are_forgotten
            the_backlog_counts_open_suspicions;
        shared_entries:
            a_shared_entry_is_kept_by_compare_and_set
            one_of_many_shared_entries_wins;
        archive:
            rows_of_every_kind_come_back_page_by_page
            a_batch_is_added_whole_or_not_at_all
            a_row_that_is_there_is_never_overwritten
            what_was_added_is_served
            what_was_served_is_read
            names_of_revocations_are_not_given_again;
    }
}

fn message(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "cancelled".to_owned() };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}
