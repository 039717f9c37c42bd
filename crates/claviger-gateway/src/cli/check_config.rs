//! `claviger check-config`

use std::fmt::Write as _;

use super::{ConfigArgs, print};
use crate::{
    config::{explain, secrets::Secrets, warnings},
    gateway::redirect_uri,
};

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let layers = args.layers()?;
    print(&explain::settings(&layers))?;
    let config = args.config(&layers)?;
    let secrets = Secrets::load(&config, &layers)?;
    let mut text = String::new();
    for warning in explain::renamed(&layers).into_iter().chain(warnings::all(&config, &layers, &secrets)) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    for note in explain::notes(&config) {
        let _ = writeln!(text, "\nnote: {note}");
    }
    let _ = writeln!(
        text,
        "\nThe configuration can be used. Redirect URI to register: {}",
        redirect_uri(&config)
    );
    print(&text)
}
