//! A standby takes over from a database that was killed. Requests wait for it instead of failing.

use std::{sync::Arc, time::Duration};

use claviger_mock::Rotation;

use crate::{
    STRICT, WORKERS, alone,
    common::operations::Answer,
    first,
    instances::{Fleet, ours},
    journal, judge, load,
    server::Server,
};

const DEVICES: usize = 200;
/// Number of requests served before and after.
const AROUND: u32 = 400;
/// Time until the operator's tools promote the standby.
const NOTICED_AFTER: Duration = Duration::from_secs(2);
const RECOVERY: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_the_database_is_a_pause_for_the_users() {
    let _alone = alone().await;
    let primary = Server::start("full_page_writes = on");
    let standby = Arc::new(Server::standby_of(&primary));
    primary.require_standby().await;
    let habit = Rotation::OneTimeKillsConnection;
    let fleet = Fleet::on(primary, Some(&standby), &vec![ours(); 2], habit, STRICT).await;
    fleet.start().await;
    let devices = fleet.users.sign_in((0..DEVICES).map(|n| n / 2)).await;
    fleet.stop().await;
    journal::begin(&fleet.server, &fleet.database).await;
    let before = fleet.rows(&devices).await;
    fleet.start().await;

    let fleet = Arc::new(fleet);
    let load = load(&fleet, &devices);
    fleet.users.go_on_for(AROUND).await;
    let settled = journal::settled(&fleet.server, &fleet.database).await;
    let (old, new) = (Arc::clone(&fleet.server), Arc::clone(&standby));
    tokio::task::spawn_blocking(move || old.kill()).await.unwrap();
    tokio::time::sleep(NOTICED_AFTER).await;
    tokio::task::spawn_blocking(move || new.promote()).await.unwrap();
    journal::require(&standby, &fleet.database, &settled).await;
    fleet.users.go_on_for(AROUND).await;
    load.stop().await;
    fleet.users.all_recover(&devices, RECOVERY).await;
    let mut fleet = Arc::into_inner(fleet).expect("the load is over");
    fleet.server = standby;
    fleet.stop().await;

    let operations = std::mem::take(&mut *fleet.users.operations());
    let (violations, _) = judge::record(&fleet, &devices, before, &operations).await.judge();
    assert_eq!(first(&violations), [], "{}", fleet.logs());
    let count = |like: fn(&Answer) -> bool| operations.count_of(|operation| like(&operation.answer));
    let (later, none) = (count(|answer| *answer == Answer::Later), count(|answer| *answer == Answer::None));
    eprintln!("{} requests, {later} told to come back, {none} unanswered", operations.count());
    // Only writes that were in flight have an unknown outcome.
    assert!(later <= WORKERS && none == 0, "{later} told to come back, {none} unanswered\n{}", fleet.logs());
}
