//! `claviger migrate`

use std::fmt::Write as _;

use anyhow::bail;
use claviger_store_postgres::{Kind, Plan, PostgresStore};

use super::{ConfigArgs, print};
use crate::{config::secrets, gateway::database_options};

pub(super) const HELP: &str = "\
Gateways migrate the database when they start, any number of them at once. This command does it beforehand: to see the steps
before a roll-out, or if the gateways' role may not change tables.

A step of the kind `expand` keeps what older versions use, so they go on working. A step of the kind `contract` removes what
only older versions use. If a release was skipped, run this command by hand; it then works only while no gateway is connected
to the database.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Show the steps, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let layers = args.config.layers()?;
    let config = args.config.config(&layers)?;
    let database =
        secrets::database(&config, &layers).map_err(|problem| crate::config::Problems(vec![problem]))?;
    let Some(database) = database else {
        bail!(
            "the sessions are in the file {}, which is migrated when a gateway opens it; this command is for a database \
             (store.url_file)",
            config.store.path.display()
        )
    };
    let options = database_options(&config, &database);
    let plan = if args.dry_run {
        PostgresStore::plan(&database.address, &options).await?
    } else {
        PostgresStore::migrate(&database.address, &options).await?
    };
    print(&steps(&plan, args.dry_run))
}

fn steps(plan: &Plan, dry_run: bool) -> String {
    if plan.steps.is_empty() {
        return format!("The database has schema {}. There is nothing to do.\n", plan.found);
    }
    let (had, were) = if dry_run { ("has", "would be") } else { ("had", "were") };
    let mut text = format!("The database {had} schema {}. These steps {were} taken:\n", plan.found);
    for step in &plan.steps {
        let kind = match step.kind {
            Kind::Expand => "expand: older versions go on working".to_owned(),
            Kind::Contract { needs } => {
                format!("contract: versions from before schema {needs} stop working")
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}  {} ({kind})", step.number, step.name);
    }
    if dry_run && plan.leaves_out().is_some() {
        text.push_str("A release was skipped. Stop all gateways first, then run this without --dry-run.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use claviger_store_postgres::Step;

    use super::*;

    #[test]
    fn each_step_of_a_plan_is_listed() {
        let listed = vec![
            Step { number: 4, name: "devices", kind: Kind::Expand },
            Step { number: 5, name: "labels", kind: Kind::Contract { needs: 3 } },
        ];
        let plan = Plan { found: 3, steps: listed };
        assert_eq!(
            steps(&plan, true),
            "The database has schema 3. These steps would be taken:\n  4  devices (expand: older versions go on working)\n  \
             5  labels (contract: versions from before schema 3 stop working)\n"
        );
        assert!(steps(&plan, false).starts_with("The database had schema 3. These steps were taken:"));
        let skipped = Plan { found: 2, ..plan };
        assert!(steps(&skipped, true).ends_with(
            "stop working)\nA release was skipped. Stop all gateways first, then run this without --dry-run.\n"
        ));
        let done = Plan { found: 5, steps: vec![] };
        assert_eq!(steps(&done, true), "The database has schema 5. There is nothing to do.\n");
    }
}
