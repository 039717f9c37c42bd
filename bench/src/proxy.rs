//! The reverse proxy with a small answer, beside a bare proxy of hyper-util, and beside nginx if it
//! is installed.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    bare::{Bare, SMALL},
    gateway::{Gateway, free_address},
    load::{Load, Measured},
    table::Table,
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The gateway's binary, built for release.
    #[arg(long)]
    gateway: PathBuf,
    /// Number of sessions that the load uses.
    #[arg(long, default_value_t = 1_000)]
    sessions: u32,
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Rounds of measurements, in turns. The median counts, also of the ratios.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let app = Bare::start(&["bare"]).await?;
    let bare = Bare::start(&["bare-proxy", "--app", app.address()]).await?;
    let gateway = Gateway::before_app(&options.gateway, options.sessions, app.address()).await?;
    let nginx = Nginx::start(app.address()).await?;
    if nginx.is_none() {
        println!("nginx is not installed, and is left out");
    }
    let load = Load::new(gateway.cookies(), options.seconds)?;
    let mut table = Table::new(&[
        ("bare proxy of hyper-util", ""),
        ("assurance session", "0.90"),
        ("the app without a proxy", ""),
        ("nginx", ""),
    ]);
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        let mut row = vec![
            bare.measure(&load, SMALL).await?,
            gateway.ask(&load, SMALL).await?,
            app.measure(&load, SMALL).await?,
        ];
        if let Some(nginx) = &nginx {
            row.push(nginx.measure(&load).await?);
        }
        table.add(row);
    }
    table.print();
    Ok(())
}

/// Prints its address, and passes requests on to the app until it is killed.
pub(crate) async fn serve_bare(app: String) -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let router =
        Router::new().fallback(move |request: Request| pass_on(client.clone(), app.clone(), request));
    axum_server::from_tcp(listener)?
        .serve(router.into_make_service_with_connect_info::<SocketAddr>())
        .await?;
    Ok(())
}

async fn pass_on(client: Client<HttpConnector, Body>, app: String, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Ok(uri) = Uri::builder().scheme("http").authority(app).path_and_query(path).build() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    match client.request(request).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// A running nginx, which ends when this is dropped.
struct Nginx {
    process: Child,
    address: String,
    _directory: TempDir,
}

impl Nginx {
    /// None if it is not installed.
    async fn start(app: &str) -> Result<Option<Self>> {
        let directory = TempDir::new()?;
        let address = free_address()?;
        let config = directory.path().join("nginx.conf");
        std::fs::write(&config, nginx_configuration(&address, app, &directory.path().display().to_string()))?;
        let started = Command::new("nginx")
            .arg("-e")
            .arg(directory.path().join("error.log"))
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("nginx does not start"),
        };
        let nginx = Self { process, address, _directory: directory };
        for _ in 0..200 {
            if reqwest::get(format!("http://{}{SMALL}", nginx.address)).await.is_ok() {
                return Ok(Some(nginx));
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::bail!("nginx was not ready in time")
    }

    async fn measure(&self, load: &Load) -> Result<Measured> {
        load.run(self.process.id().context("nginx has ended")?, &self.address, SMALL).await
    }
}

/// One process, so that its processor time can be read and it ends with this program.
fn nginx_configuration(address: &str, app: &str, directory: &str) -> String {
    format!(
        r"daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream app {{ server {app}; keepalive 64; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
    }}
  }}
}}
"
    )
}
