//! `claviger keys`

use std::{fmt::Write as _, path::PathBuf};

use clap::Subcommand;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{ConfigArgs, block_on, plan::grouped, print};
use crate::{
    key_file::{generate, promote, put_with_id},
    status::Key,
};

/// Commands for keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a root key, and print it or put it on top of a key file
    #[command(after_help = GENERATE_HELP)]
    Generate {
        /// The key file, such as claviger.keys; created if missing, readable only by its owner
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The id of the new key [default: one more than the highest in the file, or 1]
        #[arg(long)]
        id: Option<u32>,
        /// Put it at the end of the file, where it only opens: the first step with several gateways
        #[arg(long, requires = "file")]
        next: bool,
    },
    /// Move the newest key of a file to the top, where it seals: the second step with several
    /// gateways
    Promote {
        /// The key file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// List the keys of a running gateway, and the number of rows that each sealed
    #[command(after_help = LIST_HELP)]
    List(ConfigArgs),
}

const GENERATE_HELP: &str = "\
A key file holds one key per line. The first key seals, and every key opens what it sealed. The key with the highest id is
the newest.

To rotate, run this again with the same file. A running gateway reloads the file, and seals again what older keys sealed.
With several gateways take two steps, so that every gateway can open what another seals: first --next on all of them, then
`claviger keys promote` on all of them.

Remove an older key when `claviger keys list` says that it may go. docs/operations.md explains when that is.";

const LIST_HELP: &str = "\
The command asks the gateway at metrics.listen of its configuration, as `claviger status` does. Programs get the same as
JSON: curl http://127.0.0.1:9464/keys";

pub(super) fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate { file: None, id, .. } => {
            let line = Zeroizing::new(format!("{}\n", generate(id.unwrap_or(1))?.encode().expose_secret()));
            print(&line)
        }
        KeysCommand::Generate { file: Some(path), id, next } => {
            let (id, others) = put_with_id(&path, id, next)?;
            let shown = path.display();
            print(&if next {
                format!("key {id} is at the end of {shown}, where it opens; {others} above it\n")
            } else {
                format!("key {id} is on top of {shown}, where it seals; {others} below it\n")
            })
        }
        KeysCommand::Promote { file } => {
            let id = promote(&file)?;
            print(&format!("key {id} is on top of {}, where it seals\n", file.display()))
        }
        KeysCommand::List(args) => block_on(async move {
            let keys: Vec<Key> = super::status::ask(&args, "keys").await?;
            print(&listed(&keys))
        }),
    }
}

/// One line per key, the newest first.
fn listed(keys: &[Key]) -> String {
    let mut text = String::new();
    for key in keys {
        let Key { id, role, sessions, owed, .. } = key;
        let what = match role.as_str() {
            "seals" => "seals".to_owned(),
            "next" => "opens; promote it when every gateway has it".to_owned(),
            "older" if sessions + owed == 0 => of_older(key),
            "older" => "opens; its rows are being sealed again".to_owned(),
            _ => "is MISSING; put it back into the key file".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "key {id}: {} sessions and {} pending revocations; {what}",
            grouped(*sessions),
            grouped(*owed)
        );
    }
    text
}

/// What is said about an older key that no row needs.
fn of_older(key: &Key) -> String {
    match key.cookies_until.and_then(|at| jiff::Timestamp::from_second(at).ok()) {
        _ if key.may_go => "opens; nothing needs it any more, so it may go".to_owned(),
        Some(at) => {
            format!("opens; cookies may need it until {}: keep it", at.strftime("%Y-%m-%d %H:%M UTC"))
        }
        None => "opens; cookies may need it: keep it for session.idle after it last sealed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_each_key_is_for() {
        let key = |id, role: &str, sessions| Key {
            id,
            role: role.to_owned(),
            sessions,
            owed: 0,
            cookies_until: None,
            may_go: false,
        };
        let keys = [key(3, "next", 0), key(2, "seals", 1_234), key(1, "older", 7)];
        let expected = "\
key 3: 0 sessions and 0 pending revocations; opens; promote it when every gateway has it
key 2: 1,234 sessions and 0 pending revocations; seals
key 1: 7 sessions and 0 pending revocations; opens; its rows are being sealed again
";
        assert_eq!(listed(&keys), expected);
        let unknown = listed(&[key(1, "older", 0)]);
        assert!(unknown.contains("keep it for session.idle"), "{unknown}");
        let dated = listed(&[Key { cookies_until: Some(1_800_000_000), ..key(1, "older", 0) }]);
        assert!(dated.contains("cookies may need it until 2027-01-15 08:00 UTC: keep it"), "{dated}");
        let free = listed(&[Key { may_go: true, ..key(1, "older", 0) }]);
        assert!(free.contains("nothing needs it any more, so it may go"), "{free}");
        assert!(listed(&[key(1, "missing", 5)]).contains("MISSING"));
    }
}
