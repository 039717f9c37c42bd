//! Draws docs/diagrams.md. Arrows of flowcharts come from asking the rules of this crate. Sequence
//! diagrams come from runs that the engine's tests record (`tests/engine/recorded.rs` there).
//!
//! `cargo xtask diagrams` writes the page, and CI fails if it differs.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a developer's tool that fails by panicking"
)]

#[path = "diagrams/disconnect.rs"]
mod disconnect;
#[path = "diagrams/request.rs"]
mod request;
#[path = "diagrams/sweep.rs"]
mod sweep;

use std::{collections::BTreeSet, time::Duration};

use claviger_core::{
    AccessToken, ActiveState, AfterRefresh, AttemptId, BeforeReplay, Change, Claim, Custody, DeviceLabel,
    EndReason, Expiry, FailureKind, Fingerprint, IssuedPair, Lifespan, Proof, ProviderFailure,
    ProviderHabits, ProviderName, RefreshStep, RefreshToken, Refused, Rotation, SealedBlob, SealedPair,
    Session, SessionId, SessionSecret, State, Subject, Timestamp, TokenAnswer, ValidateAnswer, Version,
    verdict,
};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const OURS: AttemptId = AttemptId([1; 16]);
const THEIRS: AttemptId = AttemptId([2; 16]);
const STRICT: ProviderHabits = ProviderHabits {
    rotation: Rotation::OneTime,
    replay_window: Duration::ZERO,
    reuse_kills_connection: true,
    old_access_token_survives: true,
};
const REUSABLE: ProviderHabits = ProviderHabits { rotation: Rotation::None, ..ProviderHabits::FORGIVING };

fn main() {
    println!(
        "<!-- Written by `cargo xtask diagrams`: flowcharts from crates/claviger-core/examples/diagrams.rs, sequence diagrams\n\
         from crates/claviger-engine/tests/engine/recorded. Change them there. -->\n"
    );
    println!("# Diagrams\n");
    println!(
        "This page is generated. Each arrow of a flowchart comes from asking a rule in core. Each sequence\n\
         diagram is a recorded run of the engine with a mock provider and a store in memory.\n\
         [Answers](answers.md) explains them.\n"
    );
    states();
    println!("## A sign-in\n");
    recorded(
        "A browser without a session signs in.",
        include_str!("../../claviger-engine/tests/engine/recorded/sign-in.mmd"),
    );
    println!("## A request\n");
    request::draw();
    recorded(
        "Three requests of one session.",
        include_str!("../../claviger-engine/tests/engine/recorded/request.mmd"),
    );
    refresh();
    answers();
    println!("\n## The sweep\n");
    sweep::draw();
    recorded(
        "A visit to a slot with two live rows. One token is good, the other dead.",
        include_str!("../../claviger-engine/tests/engine/recorded/sweep.mmd"),
    );
    println!("## A disconnect\n");
    disconnect::draw();
    recorded(
        "A user with two devices disconnects the app, and the provider posts a webhook event.",
        include_str!("../../claviger-engine/tests/engine/recorded/disconnect.mmd"),
    );
    println!("## A sign-out\n");
    recorded(
        "A user signs out on one device.",
        include_str!("../../claviger-engine/tests/engine/recorded/sign-out.mmd"),
    );
}

fn recorded(caption: &str, run: &str) {
    println!("{caption}\n\n```mermaid\n{}\n```\n", run.trim_end());
}

// The states of a session.

type Transition = fn(Session) -> Result<Change, Refused>;

const TRANSITIONS: [(&str, &str, Transition); 10] = [
    ("claim", "a refresh begins", |row| row.claim(claim(OURS))),
    ("release", "a refresh came to nothing, and nothing was spent", |row| row.release(OURS)),
    ("bump_version", "a claim was perhaps not written, and must not be written late", Session::bump_version),
    ("lose_answer", "the answer to a refresh is lost", |row| row.lose_answer(OURS, true)),
    ("rotate", "a refresh brought a new pair", |row| {
        let sent = row.generation();
        row.rotate(OURS, sent, NOW, pair)
    }),
    ("repair", "a new authorization of the same user brought one", |row| {
        let subject = row.subject.clone();
        let lost = row.lose_answer(OURS, false)?.into_next();
        lost.repair(&subject, NOW, &STRICT, pair)
    }),
    ("prove", "the provider says that the access token is good", |row| {
        let generation = row.generation().unwrap_or(row.version);
        row.prove(generation, NOW)
    }),
    ("suspect", "the provider says that the access token is dead", |row| {
        let generation = row.generation().unwrap_or(row.version);
        row.suspect(generation)
    }),
    (
        "park",
        "the access token expired unused, or the proof is too old and the provider does not answer",
        |row| {
            let generation = row.generation().unwrap_or(row.version);
            row.park(generation)
        },
    ),
    ("end", "a typed reason", |row| row.end(EndReason::SignedOut, NOW)),
];

/// A row in each state, with a claim of ours on it, so that every change of the claim's owner
/// applies.
fn rows() -> [Session; 4] {
    let live = row().claim(claim(OURS)).unwrap().into_next();
    let generation = live.generation().unwrap();
    [
        live.clone(),
        live.clone().park(generation).unwrap().into_next(),
        live.clone().suspect(generation).unwrap().into_next(),
        live.end(EndReason::SignedOut, NOW).unwrap().into_next(),
    ]
}

fn states() {
    println!("## States of a session\n");
    println!("```mermaid\nstateDiagram-v2\n    [*] --> Live: sign-in");
    let mut stays = BTreeSet::new();
    for from in rows() {
        for (name, _, transition) in TRANSITIONS {
            let Ok(to) = transition(from.clone()).map(Change::into_next) else { continue };
            if state(&from) == state(&to) {
                stays.insert((state(&from), name));
            } else {
                println!("    {} --> {}: {name}", state(&from), state(&to));
            }
        }
    }
    println!("    Ended --> [*]: purge\n```\n");
    println!("| change | when | leaves the state as it is in |\n|---|---|---|");
    for (name, when, _) in TRANSITIONS {
        let at: Vec<_> = stays.iter().filter(|(_, own)| *own == name).map(|(state, _)| *state).collect();
        println!("| `{name}` | {when} | {} |", at.join(", "));
    }
    println!("\nNo arrow leads out of Ended, except the purge of its tombstone.\n");
}

fn state(row: &Session) -> &'static str {
    match row.state {
        State::Live(_) => "Live",
        State::Parked(_) => "Parked",
        State::Suspect(_) => "Suspect",
        State::Ended { .. } => "Ended",
    }
}

// The refresh protocol.

fn refresh() {
    println!("## A refresh\n");
    println!("Drawn with Twitch's habits. The table below says what differs elsewhere.\n");
    println!("```mermaid\nflowchart TD");
    println!(
        "    due([\"the pair must be refreshed: expired, suspect or parked\"]) -->|\"memory has the row, unclaimed, and nothing has to be waited for\"| claim"
    );
    println!("    due -->|else| read[\"read the row\"]");
    println!("    read -->|\"it holds a newer pair\"| adopt([\"adopt it\"])");
    println!("    read -->|\"it has ended\"| over([\"signed out\"])");
    let lost = |replay| Claim { answer_lost: true, replay, ..claim(THEIRS) };
    let soon = NOW.after(Duration::from_secs(60));
    for (words, row, habits) in [
        ("no claim", row(), &ProviderHabits::FORGIVING),
        (
            "claimed, and the lease holds",
            row().claim(leased()).unwrap().into_next(),
            &ProviderHabits::FORGIVING,
        ),
        (
            "ambiguous, and a replay is allowed",
            row().claim(lost(false)).unwrap().into_next(),
            &ProviderHabits::FORGIVING,
        ),
        (
            "ambiguous, and no replay is left or allowed",
            row().claim(lost(true)).unwrap().into_next(),
            &STRICT,
        ),
    ] {
        let node = match row.refresh_step(soon, habits).unwrap() {
            RefreshStep::Send => "claim",
            RefreshStep::Replay => "ask",
            RefreshStep::Wait { .. } => "wait",
            RefreshStep::SignInAgain => "renew",
        };
        println!("    read -->|\"{words}\"| {node}");
    }
    println!("    wait[\"wait for the winner\"] --> read");
    before();
    println!(
        "    claim[\"write the claim: attempt, lease, fingerprint\"] -->|\"another writer was first\"| read"
    );
    println!("    claim -->|written| send[\"send the refresh token, once\"]");
    for node in ["commit", "dead", "release", "lost"] {
        let leads = |answer: Answer| {
            node_of(&verdict::after_refresh(answer(), false, &ProviderHabits::FORGIVING)) == node
        };
        let words: Vec<_> = token_answers()
            .into_iter()
            .filter(|(_, answer)| leads(*answer))
            .map(|(words, _)| words)
            .collect();
        println!("    send -->|\"{}\"| {node}", words.join(", or "));
    }
    commit();
    dead();
    println!(
        "    release[\"give the claim back\"] --> later([\"served while the old token lives, then 503 with Retry-After\"])"
    );
    println!("    lost[\"mark the answer as lost: the row is ambiguous\"] --> later");
    println!(
        "    renew([\"the device's next navigation goes to the provider and back\"]) -->|\"same user, session in force\"| repair[\"a new pair in the same row\"]"
    );
    println!("    repair --> served\n```\n");
}

/// The way from the question about the old access token, for each answer.
fn before() {
    println!("    ask[\"ask about the old access token\"]");
    let telling = ProviderHabits { old_access_token_survives: false, ..STRICT };
    let expiry = Expiry::At(NOW.after(Duration::from_secs(60)));
    let forgiving = &ProviderHabits::FORGIVING;
    for (words, answer, habits) in [
        ("it is good", ValidateAnswer::Valid(proof()), forgiving),
        ("it is dead", ValidateAnswer::Rejected, forgiving),
        ("the provider does not answer", unknown(), forgiving),
        (
            "it died before its time, so the token is spent, and reuse does harm",
            ValidateAnswer::Rejected,
            &telling,
        ),
    ] {
        let node = match verdict::before_replay(&answer, expiry, NOW, habits) {
            BeforeReplay::Replay => "claim",
            BeforeReplay::Later(_) => "later",
            BeforeReplay::Spent => "renew",
        };
        println!("    ask -->|\"{words}\"| {node}");
    }
}

/// The way of a new pair, by the row as it is by then.
fn commit() {
    println!("    commit[\"write the new pair\"]");
    println!("    served([\"served with the new pair\"])");
    println!("    outbox[\"add the revocation of the new pair to the outbox\"]");
    let ours = row().claim(claim(OURS)).unwrap().into_next();
    let theirs = row().claim(claim(THEIRS)).unwrap().into_next();
    let sent = ours.generation();
    for (words, row) in [
        ("the claim is still ours", ours),
        ("the lease went to another refresh that has no new pair yet", theirs.clone()),
        ("the row has another new pair", theirs.rotate(THEIRS, None, NOW, pair).unwrap().into_next()),
        ("the row has ended", row().end(EndReason::SignedOut, NOW).unwrap().into_next()),
    ] {
        let node = if row.rotate(OURS, sent, NOW, pair).is_ok() { "served" } else { "outbox" };
        println!("    commit -->|\"{words}\"| {node}");
    }
}

/// The way of a word that the refresh token is dead.
fn dead() {
    println!("    dead[\"read the row again\"]");
    let reason = EndReason::RefreshTokenRejected;
    for (words, row) in [
        ("it still is our claim: end it", row().claim(claim(OURS)).unwrap().into_next()),
        ("it moved on", row().claim(claim(THEIRS)).unwrap().into_next()),
    ] {
        let node = if row.end_rejected(OURS, reason, NOW).is_ok() { "over" } else { "adopt" };
        println!("    dead -->|\"{words}\"| {node}");
    }
}

fn unknown() -> ValidateAnswer {
    ValidateAnswer::Unknown(ProviderFailure::new(FailureKind::NoAnswer))
}

fn proof() -> Proof {
    Proof {
        client_id: String::new(),
        subject_id: Some("1".into()),
        display_name: None,
        lifespan: Lifespan::Unknown,
        scopes: Vec::new(),
    }
}

fn answers() {
    println!(
        "What follows from an answer depends on what the provider does with refresh tokens\n(`provider.rotation`):\n"
    );
    println!(
        "| answer | first time, `rotates` or `one_time` | sent again after a lost answer | `none`, each time |\n|---|---|---|---|"
    );
    // Two habits in one column, where they differ.
    let both = |some: String, strict: String| {
        if some == strict { some } else { format!("{some}; {strict} where reuse does harm") }
    };
    for (words, answer) in token_answers() {
        let after = |replay, habits| after_words(&verdict::after_refresh(answer(), replay, habits));
        assert_eq!(after(false, &REUSABLE), after(true, &REUSABLE), "the two columns are one");
        let [first, again] = [false, true]
            .map(|replay| both(after(replay, &ProviderHabits::FORGIVING), after(replay, &STRICT)));
        println!("| {words} | {first} | {again} | {} |", after(false, &REUSABLE));
    }
}

type Answer = fn() -> TokenAnswer;

fn token_answers() -> [(&'static str, Answer); 9] {
    [
        ("a new pair", || {
            TokenAnswer::Issued(IssuedPair {
                access: AccessToken::new("access"),
                refresh: Some(RefreshToken::new("refresh")),
                lifespan: Lifespan::Unknown,
                scopes: None,
            })
        }),
        ("the refresh token is dead", || TokenAnswer::Rejected),
        ("our client or secret is wrong", || TokenAnswer::Misconfigured),
        ("never sent", || TokenAnswer::Unknown(ProviderFailure::new(FailureKind::NotSent))),
        ("404, 408, 429, 501", || TokenAnswer::Unknown(ProviderFailure::new(FailureKind::Status(429)))),
        ("503 with Retry-After", || {
            let retry_after = Some(Duration::from_secs(20));
            TokenAnswer::Unknown(ProviderFailure { kind: FailureKind::Status(503), retry_after })
        }),
        ("503 without Retry-After", || TokenAnswer::Unknown(ProviderFailure::new(FailureKind::Status(503)))),
        ("500, 502, 504 and above", || TokenAnswer::Unknown(ProviderFailure::new(FailureKind::Status(502)))),
        ("no answer", || TokenAnswer::Lost(ProviderFailure::new(FailureKind::NoAnswer))),
    ]
}

fn node_of(after: &AfterRefresh) -> &'static str {
    match after {
        AfterRefresh::Commit(_) => "commit",
        AfterRefresh::End(_) => "dead",
        AfterRefresh::Release(_) | AfterRefresh::ReleaseAndAlarm => "release",
        AfterRefresh::MarkLost { .. } => "lost",
    }
}

fn after_words(after: &AfterRefresh) -> String {
    match after {
        AfterRefresh::Commit(_) => "the new pair is written",
        AfterRefresh::End(_) => "the row ends",
        AfterRefresh::Release(_) => "nothing was spent: retried later",
        AfterRefresh::ReleaseAndAlarm => "nothing was spent: an alarm",
        AfterRefresh::MarkLost { alarm: true, .. } => "ambiguous as before: an alarm",
        AfterRefresh::MarkLost { replay_left: true, .. } => "ambiguous: may be sent again",
        AfterRefresh::MarkLost { replay_left: false, .. } => {
            "ambiguous for good: a new authorization repairs it"
        }
    }
    .to_owned()
}

// A session to try the rules on.

fn row() -> Session {
    Session {
        id: SessionId::new(NOW, [1; 10]),
        version: Version::FIRST,
        subject: Subject { provider: ProviderName("twitch".into()), id: "1".into() },
        display_name: "ada".into(),
        secret_hash: SessionSecret::new([9; 32]).hash(),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: NOW,
        last_seen_at: NOW,
        state: State::Live(ActiveState { pair: Some(pair(Version::FIRST)), proven_at: NOW, claim: None }),
    }
}

fn pair(generation: Version) -> SealedPair {
    SealedPair {
        generation,
        access: SealedBlob(vec![1]),
        refresh: Some(SealedBlob(vec![2])),
        expiry: Expiry::At(NOW.after(Duration::from_secs(4 * 60 * 60))),
    }
}

fn claim(attempt: AttemptId) -> Claim {
    Claim {
        attempt,
        taken_at: NOW,
        lease_until: NOW.after(Duration::from_secs(30)),
        fingerprint: Fingerprint([3; 16]),
        replay: false,
        answer_lost: false,
    }
}

fn leased() -> Claim {
    Claim { lease_until: NOW.after(Duration::from_secs(90)), ..claim(THEIRS) }
}
