//! Carries out a plan.

use std::{sync::Arc, time::Duration};

use claviger_mock::Endpoint;

use crate::{
    devices::{ask, end_other, end_others, kill_access_token, repair, sign_in, sign_out},
    mail,
    plan::{Act, Plan},
    record::Outcome,
    settle,
    variant::Variant,
    world::World,
};

pub(crate) async fn run(plan: &Plan, variant: Variant, verbose: bool) -> Outcome {
    let world = Arc::new(World::new(plan, variant, verbose));
    tokio::spawn(mail::carry(Arc::clone(&world)));
    for instance in 0..plan.instances {
        world.start(instance).await;
    }
    for step in &plan.steps {
        tokio::time::sleep(step.after).await;
        world.restart_some().await;
        world.check_rows_in_force();
        act(&world, step.act.clone());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    settle::settle(&world).await;
    world.record.take()
}

/// Carries out an act. Acts that take time run beside the next ones.
fn act(world: &Arc<World>, act: Act) {
    let own = Arc::clone(world);
    match act {
        Act::Ask { device, tabs } => {
            for tab in tabs {
                tokio::spawn(ask(Arc::clone(world), device, tab));
            }
        }
        Act::SignIn { device, instance } => {
            drop(tokio::spawn(async move { sign_in(&own, device, instance).await }))
        }
        Act::Repair { device, instance } => {
            drop(tokio::spawn(async move { repair(&own, device, instance).await }))
        }
        Act::SignOut { device, instance } => {
            drop(tokio::spawn(async move { sign_out(&own, device, instance).await }));
        }
        Act::EndOther { device, other, instance } => {
            drop(tokio::spawn(async move { end_other(&own, device, other, instance).await }));
        }
        Act::EndOthers { device, instance } => {
            drop(tokio::spawn(async move { end_others(&own, device, instance).await }));
        }
        Act::Disconnect { user } => mail::disconnect(world, user),
        Act::Reconnect { device, instance, gap_ms } => {
            drop(tokio::spawn(mail::reconnect(own, device, instance, gap_ms)));
        }
        Act::DeleteAccount { user } => mail::delete_account(world, user),
        Act::Mail { mail } => mail::set_mail(world, mail),
        Act::ReleaseMail { newest_first } => mail::release(world, newest_first),
        Act::KillAccessToken { device } => kill_access_token(world, device),
        Act::Trap { instance, point, trap } => {
            if let Some(instance) = world.instance(instance) {
                instance.fate.set_trap(point, trap);
            }
        }
        Act::Crash { instance } => {
            if let Some(instance) = world.instance(instance) {
                instance.fate.crash();
            }
        }
        Act::TokenFault { kind } => {
            world.record.count("fault: token endpoint", 8);
            world.provider.fails(Endpoint::Token, kind, 1);
        }
        Act::ValidateFault { kind, calls } => {
            world.record.count("fault: validation", 8);
            world.provider.fails(Endpoint::Validate, kind, calls);
        }
        Act::Outage { .. }
        | Act::Network { .. }
        | Act::StoreDown { .. }
        | Act::StoreTrouble { .. }
        | Act::Lag { .. }
        | Act::Clock { .. } => {
            tokio::spawn(weather(own, act));
        }
    }
}

/// The endpoints that an outage concerns.
const OUT: [Endpoint; 5] = [
    Endpoint::Token,
    Endpoint::Validate,
    Endpoint::Revoke,
    Endpoint::HelixAuthorizationUsers,
    Endpoint::HelixEventsubSubscriptions,
];

/// Something fails for a while.
async fn weather(world: Arc<World>, act: Act) {
    match act {
        Act::Outage { kind, lasts } => {
            world.record.count("fault: outage", 8);
            for endpoint in OUT {
                world.provider.fails_until_mended(endpoint, kind.clone());
            }
            tokio::time::sleep(lasts).await;
            world.provider.mock().clear_faults();
        }
        Act::Network { unplugged, slow, loses_permille, lasts } => {
            world.record.count("fault: network", 8);
            world.provider.set_network(|network| {
                network.unplugged |= unplugged;
                network.slow |= slow;
                network.loses_permille = network.loses_permille.max(loses_permille);
            });
            tokio::time::sleep(lasts).await;
            world.provider.set_network(|network| *network = crate::wire::Network::default());
        }
        Act::Lag { lag_ms, lasts } => {
            world.record.count("fault: new tokens unknown for a while", 8);
            world.provider.mock().settings_mut().token_lag_ms = lag_ms;
            tokio::time::sleep(lasts).await;
            world.provider.mock().settings_mut().token_lag_ms = 0;
        }
        Act::StoreDown { instance, lasts } => {
            let Some(instance) = world.instance(instance) else { return };
            instance.fate.set_store_down(true);
            tokio::time::sleep(lasts).await;
            instance.fate.set_store_down(false);
        }
        Act::StoreTrouble { instance, permille, lasts } => {
            let Some(instance) = world.instance(instance) else { return };
            instance.fate.set_store_trouble(permille);
            tokio::time::sleep(lasts).await;
            instance.fate.set_store_trouble(0);
        }
        Act::Clock { instance, by_ms, lasts } => {
            let one = instance.is_some() && world.plan.instances > 1;
            world.record.count(if one { "clock: one jumped" } else { "clock: all jumped" }, 8);
            world.record.count(if by_ms > 0 { "clock: ahead" } else { "clock: back" }, 8);
            world.set_clocks(instance, by_ms);
            tokio::time::sleep(lasts).await;
            world.set_clocks(instance, 0);
        }
        _ => {}
    }
}
