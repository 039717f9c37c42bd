//! What the sweep does with a row of a slot that is due.

use std::time::Duration;

use claviger_core::{
    AfterValidate, FailureKind, Proof, ProviderFailure, RateLimit, RateLimitBounds, Schedule, ValidateAnswer,
    Version, verdict,
};

use crate::{NOW, proof, rows};

pub(crate) fn draw() {
    let schedule = Schedule::default();
    println!("```mermaid\nflowchart TD");
    println!(
        "    slot([\"a slot is due: once in sweep.period\"]) --> lease[\"lease the most overdue slot\"]"
    );
    println!("    lease --> row[\"take its live rows, one after another\"]");
    for (words, proven_ago) in [
        ("its proof stays young enough until the next visit", Duration::ZERO),
        ("its proof would grow too old", schedule.period),
    ] {
        let now = NOW.after(proven_ago);
        let stays = schedule.stays_proven(NOW, now, now.after(schedule.period));
        println!("    row -->|\"{words}\"| {}", if stays { "pass" } else { "permit" });
    }
    println!("    row -->|\"its access token has expired\"| park");
    println!("    permit[\"wait for a permit of the shared rate limit\"] --> validate");
    println!("    validate[\"validate the access token\"]");
    let [live, ..] = rows();
    for (words, answer) in answers() {
        let node = match verdict::after_validate(&live, Version::FIRST, "", &answer) {
            AfterValidate::Prove(_) => "prove",
            AfterValidate::Suspect(_) => "suspect",
            AfterValidate::End(_) => "over",
            AfterValidate::Alarm => "alarm",
            AfterValidate::Nothing(_) => "again",
        };
        println!("    validate -->|\"{words}\"| {node}");
    }
    let (before, after) = rate_after_429();
    println!(
        "    validate -->|\"429\"| slow[\"all instances go at half the rate: from {before} to {after} a second\"]"
    );
    println!("    slow --> again");
    println!("    again[\"ask again a little later\"] --> permit");
    println!("    prove([\"write the proof, with others, in one step\"])");
    println!(
        "    suspect[\"the row becomes Suspect\"] --> suspicion([\"the user may have disconnected: see below\"])"
    );
    println!("    over([\"end the session, and raise an alarm\"])");
    println!("    alarm([\"raise an alarm, and change nothing\"])");
    println!("    park([\"park it: nobody validates it until its user returns\"])");
    println!("    pass([\"leave it for the next visit\"])\n```\n");
}

fn answers() -> [(&'static str, ValidateAnswer); 5] {
    [
        ("it is good", ValidateAnswer::Valid(proof())),
        ("it is dead", ValidateAnswer::Rejected),
        ("it is another user's", ValidateAnswer::Valid(Proof { subject_id: Some("2".into()), ..proof() })),
        ("it is another client's", ValidateAnswer::Valid(Proof { client_id: "other".into(), ..proof() })),
        ("no answer", ValidateAnswer::Unknown(ProviderFailure::new(FailureKind::NoAnswer))),
    ]
}

/// The default rate, and the rate after the provider answered 429.
fn rate_after_429() -> (f64, f64) {
    let bounds = RateLimitBounds::per_second(20);
    let before = RateLimit::NEW;
    let after = before.troubled(NOW, &bounds, None);
    (before.per_second(NOW, &bounds), after.per_second(NOW, &bounds))
}
