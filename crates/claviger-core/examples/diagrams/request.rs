//! What a request needs, and what follows from the provider's word on its access token.

use std::time::Duration;

use claviger_core::{
    AfterValidate, Assurance, FailureKind, Lifetimes, Need, ProviderFailure, Session, State, ValidateAnswer,
    Version, request, verdict,
};

use crate::{NOW, proof, rows};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

pub(crate) fn draw() {
    flowchart();
    table();
}

fn flowchart() {
    println!("```mermaid\nflowchart TD");
    println!("    request([\"a request shows the session's cookie\"])");
    println!(
        "    request -->|\"assurance cookie, and the cookie is in time and not on the denylist\"| served"
    );
    println!("    request -->|else| row[\"the row, from memory or the store\"]");
    println!("    row -->|\"the secrets differ\"| out");
    for node in ["served", "early", "ask", "refresh", "renew", "over", "out"] {
        let leads = |case: &&Case| node_of(case.needs(Assurance::Session)) == node;
        let words: Vec<_> = cases().iter().filter(leads).map(|case| case.words).collect();
        println!("    row -->|\"{}\"| {node}", words.join(", or ").replace('`', ""));
    }
    println!("    ask[\"ask the provider about the access token\"]");
    for (words, node) in after_asking() {
        println!("    ask -->|\"{words}\"| {node}");
    }
    println!("    refresh[\"refresh the pair: see below\"] --> served");
    println!("    early[\"refresh the pair beside the request\"] --> served");
    println!("    over[\"end the session\"] --> out");
    println!("    served([\"served\"])");
    println!("    later([\"503 with Retry-After, the cookie stays\"])");
    println!("    renew([\"401, and the next navigation goes to the provider for a new authorization\"])");
    println!("    out([\"401 with the reason, or for a navigation 303 to the sign-in page\"])\n```\n");
}

/// Where each answer about the access token of a live row leads.
fn after_asking() -> Vec<(&'static str, &'static str)> {
    let [live, ..] = rows();
    let unknown = ValidateAnswer::Unknown(ProviderFailure::new(FailureKind::NoAnswer));
    let node = |answer: &ValidateAnswer, proven: Duration| match verdict::after_validate(
        &live,
        Version::FIRST,
        "",
        answer,
    ) {
        AfterValidate::Prove(_) => "served",
        AfterValidate::Suspect(_) => "refresh",
        AfterValidate::End(_) => "over",
        AfterValidate::Alarm | AfterValidate::Nothing(_) => {
            let now = NOW.after(proven);
            let serves = request::may_serve_unproven(&live, now, Assurance::Session, &Lifetimes::default());
            if serves { "served" } else { "later" }
        }
    };
    let of_another =
        ValidateAnswer::Valid(claviger_core::verdict::Proof { subject_id: Some("2".into()), ..proof() });
    vec![
        ("it is good", node(&ValidateAnswer::Valid(proof()), MINUTE)),
        ("it is dead: the row becomes Suspect", node(&ValidateAnswer::Rejected, MINUTE)),
        ("it is another user's", node(&of_another, MINUTE)),
        ("no answer, and the old token and proof may still serve", node(&unknown, HOUR)),
        ("no answer, and the token or session.max_unverified is over", node(&unknown, 5 * HOUR)),
    ]
}

fn table() {
    println!("What a request needs, by the state of the row and the assurance of the path:\n");
    println!("| row | `cookie` or `session` | `provider`, five minutes |\n|---|---|---|");
    for case in cases() {
        let [session, provider] = [Assurance::Session, Assurance::Provider { max_age: 5 * MINUTE }]
            .map(|assurance| in_words(case.needs(assurance)));
        println!("| {} | {session} | {provider} |", case.words);
    }
    println!();
}

/// A row, and how long after its sign-in a request comes.
struct Case {
    words: &'static str,
    row: Session,
    age: Duration,
}

impl Case {
    fn needs(&self, assurance: Assurance) -> Need {
        request::need(&self.row, NOW.after(self.age), assurance, &Lifetimes::default())
    }
}

fn cases() -> Vec<Case> {
    let [live, parked, suspect, ended] = rows();
    let lifetimes = Lifetimes::default();
    let case = |words, row: &Session, age| Case { words, row: row.clone(), age };
    let changed = |change: fn(&mut claviger_core::session::ActiveState)| {
        let mut row = live.clone();
        if let State::Live(active) = &mut row.state {
            change(active);
        }
        row
    };
    // Right before the refresh margin every session is in its span of early refreshes.
    let soon = 4 * HOUR - lifetimes.refresh_margin - Duration::from_secs(1);
    let expires_soon = changed(|active| active.proven_at = NOW.after(3 * HOUR + 30 * MINUTE));
    let without_refresh = changed(|active| active.pair.iter_mut().for_each(|pair| pair.refresh = None));
    let without_pair = changed(|active| active.pair = None);
    vec![
        case("Live, proven a minute ago", &live, MINUTE),
        case("Live, proven ten minutes ago", &live, 10 * MINUTE),
        case("Live, its proof is older than `session.proof`", &live, 2 * HOUR),
        case("Live, the token expires soon", &expires_soon, soon),
        case("Live, the token has expired", &live, 4 * HOUR),
        case("Live, the token has expired, and there is no refresh token", &without_refresh, 4 * HOUR),
        case("Live without a token (custody `none`), proven ten minutes ago", &without_pair, 10 * MINUTE),
        case("Parked", &parked, MINUTE),
        case("Suspect", &suspect, MINUTE),
        case("not used for `session.idle`", &live, lifetimes.idle),
        case("Ended", &ended, MINUTE),
    ]
}

fn node_of(need: Need) -> &'static str {
    match need {
        Need::Nothing => "served",
        Need::RefreshEarly => "early",
        Need::Proof => "ask",
        Need::Refresh => "refresh",
        Need::SignIn => "renew",
        Need::End(_) => "over",
        Need::Refuse(_) => "out",
    }
}

fn in_words(need: Need) -> &'static str {
    match need {
        Need::Nothing => "nothing: it is served",
        Need::Proof => "a validation of the access token",
        Need::Refresh => "a refresh",
        Need::RefreshEarly => "nothing: it is served, and refreshed beside it",
        Need::SignIn => "a new authorization",
        Need::End(_) => "its end: its time is over",
        Need::Refuse(_) => "a sign-in: it is over",
    }
}
