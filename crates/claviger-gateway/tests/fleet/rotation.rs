//! Keys roll over three gateways on one database while users with expiring tokens are served: step
//! by step, as docs/operations.md says, one gateway after the other, by the file, by SIGHUP and by
//! a restart. No request fails, no session ends, and nothing stays on the old key.

use std::sync::Arc;

use claviger_mock::Rotation;

use crate::{
    alone,
    common::{
        keys::{listed, until_roles},
        operations::Operation,
        process::until,
        users::{Device, Load},
    },
    instances::{Fleet, Instance, ours},
};

const DEVICES: usize = 300;
const WORKERS: usize = 6;
/// Number of requests served between two changes.
const BETWEEN: u32 = 60;
const SETTINGS: &str = "session.custody = \"server\"
    provider.rotation = \"one_time\"
    sweep.validations_per_second = 10000";

/// How an instance learns of its new keys.
#[derive(Clone, Copy)]
enum Told {
    /// It looks at the file by itself.
    File,
    Signal,
    Restart,
}

/// Devices take turns, so that none sends two requests at a time. One round in four is a call, the
/// others are identity requests.
fn load(fleet: &Arc<Fleet>, devices: &[Arc<Device>]) -> Load {
    let (fleet, devices) = (Arc::clone(fleet), Arc::<[_]>::from(devices));
    Load::start(WORKERS, move |n| {
        let (fleet, device) = (Arc::clone(&fleet), Arc::clone(&devices[n % devices.len()]));
        async move {
            if (n + n / DEVICES).is_multiple_of(4) {
                fleet.users.call_expired(&device).await;
            } else {
                fleet.users.look(&device).await;
            }
        }
    })
}

impl Fleet {
    /// Hands the operator's keys to one instance after the other, each in its own way, while
    /// requests continue.
    async fn hand_out_keys(&self, ways: [Told; 3], expected: &[(u64, &str)]) {
        for (instance, told) in self.instances.iter().zip(ways) {
            self.hand_keys_to(instance);
            match told {
                Told::File => {}
                Told::Signal => instance.tell("HUP"),
                Told::Restart => self.restart(instance).await,
            }
            until_roles(&instance.client, instance.metrics, expected, || self.logs()).await;
            self.users.go_on_for(BETWEEN).await;
            // Read the provider's log before it overflows.
            self.users.sends();
        }
    }

    /// Drains an instance before its stop, as an operator does.
    async fn restart(&self, instance: &Instance) {
        self.front.spare(instance.address, true).await;
        instance.stop().await;
        instance.start().await;
        self.front.spare(instance.address, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_roll_over_three_gateways_without_a_failed_request() {
    let _alone = alone().await;
    let fleet = Arc::new(Fleet::of(&vec![ours(); 3], Rotation::OneTime, SETTINGS).await);
    fleet.start().await;
    let devices = fleet.users.sign_in(0..DEVICES).await;
    let first_cookies: Vec<_> = devices.iter().map(|device| device.cookie()).collect();
    let load = load(&fleet, &devices);
    fleet.users.go_on_for(BETWEEN).await;
    let all_served = |when: &str| {
        let operations = fleet.users.operations();
        assert_eq!(operations.failed(), Vec::<&Operation>::new(), "{when}\n{}", fleet.logs());
        assert_eq!(operations.violations(0), [], "{when}");
    };

    fleet.keys.change("generate --next");
    let ways = [Told::File, Told::Signal, Told::Restart];
    fleet.hand_out_keys(ways, &[(2, "next"), (1, "seals")]).await;
    all_served("the next key is everywhere");
    fleet.keys.change("promote");
    let ways = [Told::Signal, Told::Restart, Told::File];
    fleet.hand_out_keys(ways, &[(2, "seals"), (1, "older")]).await;
    all_served("it seals everywhere");

    let (metrics, client) = (fleet.instances[0].metrics, &fleet.instances[0].client);
    until(
        "nothing is left on the old key",
        || fleet.logs(),
        || async { listed(client, metrics).await[1].2 == 0 },
    )
    .await;
    let has_new = |(device, first): (&Arc<Device>, &String)| device.cookie() != *first;
    let all_have = || std::future::ready(devices.iter().zip(&first_cookies).all(has_new));
    until("every device has a new cookie", || fleet.logs(), all_have).await;
    for instance in &fleet.instances {
        let told = instance.program.run("keys list");
        let told = String::from_utf8_lossy(&told.stdout);
        assert!(
            told.contains("key 1: 0 sessions and 0 pending revocations; opens; cookies may need it until"),
            "{told}"
        );
        assert!(told.contains(&format!("key 2: {DEVICES} sessions")), "{told}");
    }

    fleet.keys.retire(1);
    let ways = [Told::Restart, Told::File, Told::Signal];
    fleet.hand_out_keys(ways, &[(2, "seals")]).await;
    load.stop().await;
    all_served("the old key is gone");
    assert_eq!(fleet.users.reused(), 0, "SPENT");
    assert_eq!(fleet.users.sends().most(), 1, "SPENT");
    eprintln!("{} requests, {} refreshes", fleet.users.operations().count(), fleet.users.refreshes());
}
