//! `claviger credentials`

use std::path::PathBuf;

use clap::Subcommand;

use super::print;
use crate::private::{
    credentials::{self, Revoked},
    rights::{Name, Right},
};

/// Commands for the credentials of the private listener.
#[derive(Debug, Subcommand)]
pub(super) enum CredentialsCommand {
    /// Make a secret, print it once, and add its hash to the file
    #[command(after_help = ADD_HELP)]
    Add {
        /// Whose it is, such as worker
        name: Name,
        /// What it allows; several may be given [default: the rights that the name has already]
        #[arg(long = "right", value_name = "RIGHT", num_args = 1..)]
        rights: Vec<Right>,
        /// The file, private.credentials_file of the gateway; created if missing, readable only by
        /// its owner
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// List the names and their rights
    List {
        /// The file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Remove the secrets of a name
    Revoke {
        /// Whose they are
        name: Name,
        /// Remove only the older of two, which the newer one replaced
        #[arg(long)]
        older: bool,
        /// The file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

const ADD_HELP: &str = "\
The rights are listed in docs/private.md. A running gateway reads the file again within seconds.

To replace a secret without a pause, run this again with the same name: then both secrets work. Give the new one to its
user, and remove the other with `claviger credentials revoke NAME --older`.";

pub(super) fn run(command: CredentialsCommand) -> anyhow::Result<()> {
    match command {
        CredentialsCommand::Add { name, rights, file } => {
            let secret = credentials::add(&file, &name, &rights)?;
            print(&zeroize::Zeroizing::new(format!("{}\n", secret.as_str())))
        }
        CredentialsCommand::List { file } => {
            print(&credentials::read(&file).map_err(anyhow::Error::msg)?.to_string())
        }
        CredentialsCommand::Revoke { name, older, file } => {
            let which = if older { Revoked::Older } else { Revoked::All };
            let removed = credentials::revoke(&file, &name, which)?;
            print(&format!("removed {removed} of the secrets of {name} from {}\n", file.display()))
        }
    }
}
