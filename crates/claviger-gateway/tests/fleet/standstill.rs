//! A gateway that was stopped (SIGSTOP) wakes with old memory, and with requests that came
//! meanwhile.

use std::time::Duration;

use claviger_mock::Rotation;
use futures_util::future::join_all;

use crate::{
    STRICT, alone,
    common::operations::Answer,
    instances::{Fleet, ours},
    judge::HEARD_WITHIN,
};

const DEVICES: usize = 200;

/// The change feed waits for it beside the requests, and either may be handled first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateway_sees_sign_outs_when_it_wakes() {
    let _alone = alone().await;
    let fleet = Fleet::of(&vec![ours(); 2], Rotation::OneTimeKillsConnection, STRICT).await;
    fleet.start().await;
    let devices = fleet.users.sign_in(0..DEVICES).await;
    let [one, other] = [&fleet.instances[0], &fleet.instances[1]];
    let looks = || join_all(devices.iter().map(|device| fleet.users.look_at(other.address, device)));
    // All at once, so that each later has a connection that is already open.
    for _ in 0..2 {
        let served = looks().await.into_iter().filter(|answer| matches!(answer, Answer::Served(_))).count();
        assert_eq!(served, DEVICES);
    }
    other.tell("STOP");
    for device in &devices {
        assert_eq!(fleet.users.sign_out_at(one.address, device).await, Answer::Done);
    }
    // Time in which an instance notices a broken feed.
    tokio::time::sleep(Duration::from_millis(HEARD_WITHIN.try_into().unwrap())).await;
    let wake = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        other.tell("CONT");
    };
    let (answers, ()) = tokio::join!(looks(), wake);
    let refused = answers.iter().filter(|answer| matches!(answer, Answer::Over(_))).count();
    assert_eq!(fleet.users.operations().violations(HEARD_WITHIN), []);
    assert!(refused > 0, "{answers:?}");
}
