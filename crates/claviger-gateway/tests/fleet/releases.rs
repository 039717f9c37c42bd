//! The previous release and this one on one database. Under load the fleet goes from the one to the
//! other and back, and then the schema grows by a step that neither of them knows. No request
//! fails, and no session ends.

use std::{path::PathBuf, sync::Arc};

use claviger_mock::Rotation;

use crate::{
    INSTANCES, RECOVERY, STRICT, alone,
    common::{
        operations::{Answer, Operation},
        users::{Device, Load},
    },
    first,
    instances::{Fleet, Instance, ours},
    journal, judge,
};

const DEVICES: usize = 400;
const WORKERS: usize = 6;
/// Number of requests served between two changes.
const BETWEEN: u32 = 150;

/// What a future release may do while these two run: an expansion.
const NEXT_STEP: &str = "BEGIN;
    ALTER TABLE claviger.session ADD COLUMN of_the_next_release text;
    CREATE TABLE claviger.of_the_next_release (id uuid PRIMARY KEY);
    INSERT INTO claviger.schema_step (number, name, kind, needs)
        SELECT max(number) + 1, 'of the next release', 'expand', 0 FROM claviger.schema_step;
    COMMIT";

fn previous() -> PathBuf {
    let binary = std::env::var_os("PREVIOUS_RELEASE");
    binary.expect("PREVIOUS_RELEASE names the gateway of the previous release").into()
}

/// Devices take turns, so that none sends two requests at a time. Some sign out, and continue to
/// send requests.
fn load(fleet: &Arc<Fleet>, devices: &[Arc<Device>]) -> Load {
    let (fleet, devices) = (Arc::clone(fleet), Arc::<[_]>::from(devices));
    Load::start(WORKERS, move |n| {
        let (fleet, device) = (Arc::clone(&fleet), Arc::clone(&devices[n % devices.len()]));
        async move {
            if n % 67 == 66 {
                fleet.users.sign_out(&device).await;
            } else if (n + n / DEVICES).is_multiple_of(2) {
                fleet.users.call_expired(&device).await;
            } else {
                fleet.users.look(&device).await;
            }
        }
    })
}

impl Fleet {
    /// Replaces one instance by another while requests continue, as an operator does.
    async fn replace(&self, old: &Instance, new: &Instance) {
        new.start().await;
        self.front.spare(new.address, false).await;
        self.users.go_on_for(BETWEEN).await;
        self.front.spare(old.address, true).await;
        old.stop().await;
        self.users.go_on_for(BETWEEN).await;
        self.users.sends();
    }

    async fn replace_all(&self, old: &[Arc<Instance>], new: &[Arc<Instance>]) {
        for (old, new) in old.iter().zip(new) {
            self.replace(old, new).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it needs the previous release: `cargo xtask releases` builds it and runs this"]
async fn a_fleet_goes_to_the_next_release_and_back_under_load_without_a_failed_request() {
    let _alone = alone().await;
    let binaries = [vec![previous(); INSTANCES], vec![ours(); INSTANCES]].concat();
    let fleet = Arc::new(Fleet::of(&binaries, Rotation::OneTimeKillsConnection, STRICT).await);
    let (old, new) = fleet.instances.split_at(INSTANCES);
    for instance in new {
        fleet.front.spare(instance.address, true).await;
    }
    // They begin on their own schema.
    let start_old = || futures_util::future::join_all(old.iter().map(|instance| instance.start()));
    start_old().await;
    let devices = fleet.users.sign_in(0..DEVICES).await;
    fleet.stop().await;
    journal::begin(&fleet.server, &fleet.database).await;
    let before = fleet.rows(&devices).await;
    start_old().await;

    let load = load(&fleet, &devices);
    fleet.users.go_on_for(BETWEEN).await;
    fleet.replace_all(old, new).await;
    fleet.replace_all(new, old).await;
    fleet.server.client(&fleet.database).await.batch_execute(NEXT_STEP).await.unwrap();
    fleet.users.go_on_for(BETWEEN).await;
    // An instance that starts now finds a newer schema than it knows.
    fleet.replace_all(&old[..1], &new[..1]).await;
    fleet.replace_all(&new[..1], &old[..1]).await;
    load.stop().await;
    fleet.users.all_recover(&devices, RECOVERY).await;
    fleet.stop().await;

    let operations = std::mem::take(&mut *fleet.users.operations());
    // Whether a sign-out was right is judged below.
    let failed = operations.failed().into_iter().filter(|failed| !matches!(failed.answer, Answer::Over(_)));
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&Operation>::new(), "{}", fleet.logs());
    let (violations, history) = judge::record(&fleet, &devices, before, &operations).await.judge();
    assert_eq!(first(&violations), [], "{}", fleet.logs());
    let (asked, refreshes) = (operations.count(), fleet.users.refreshes());
    eprintln!("{asked} requests, {} commits, {refreshes} refreshes", history.commits);
}
