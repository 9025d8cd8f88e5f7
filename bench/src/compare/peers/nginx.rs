//! nginx, with its files kept open, in the two settings of which one or the other is faster.

use super::{Peer, Place, Series, Settings};
use crate::program::{find, version};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

struct Nginx {
    program: PathBuf,
    version: String,
    sending: Sending,
}

/// How it moves a file to a socket.
#[derive(Clone, Copy)]
enum Sending {
    Sendfile,
    LargeBuffers,
}

pub(super) fn settings() -> Result<Settings> {
    let program = find("nginx").context("there is no nginx here")?;
    // Such as `nginx version: nginx/1.22.1`.
    let version = version(&program, "-v")?;
    let version = version.trim_start_matches("nginx version: ").to_owned();
    let setting = |sending| -> Box<dyn Peer> {
        Box::new(Nginx {
            program: program.clone(),
            version: version.clone(),
            sending,
        })
    };
    Ok(vec![
        setting(Sending::Sendfile),
        setting(Sending::LargeBuffers),
    ])
}

impl Peer for Nginx {
    fn series(&self) -> Series {
        Series::Nginx
    }

    fn setting(&self) -> &'static str {
        match self.sending {
            Sending::Sendfile => "sendfile",
            Sending::LargeBuffers => "buffers",
        }
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn speaks_http2(&self) -> bool {
        true
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let path = place.scratch.join("nginx.conf");
        fs::write(&path, self.configuration(place)).context("cannot write nginx.conf")?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&path).arg("-p").arg(place.scratch);
        Ok(command)
    }
}

impl Nginx {
    /// A log as millpond's: a line for each request, which no request waits for.
    fn configuration(&self, place: &Place) -> String {
        let Place {
            address,
            root,
            scratch,
            cores,
            certificate,
            ..
        } = place;
        // One process that does it all is as fast as a worker beside a master, and simpler to look at.
        let processes = match cores {
            1 => "master_process off;".to_owned(),
            cores => format!("worker_processes {cores};\nuser root;"),
        };
        let sending = match self.sending {
            Sending::Sendfile => "sendfile on; tcp_nopush on;",
            Sending::LargeBuffers => "sendfile off; output_buffers 2 512k;",
        };
        let (tls, certificate) = match certificate {
            None => ("", String::new()),
            Some(certificate) => {
                let (chain, key) = (certificate.chain(), certificate.key());
                let (chain, key) = (chain.display(), key.display());
                let lines = format!("ssl_certificate {chain}; ssl_certificate_key {key};\n");
                (" ssl http2", lines)
            }
        };
        let (root, scratch) = (root.display(), scratch.display());
        format!(
            "daemon off;\n{processes}\npid {scratch}/nginx.pid;\nerror_log stderr error;\n\
             worker_rlimit_nofile 16384;\nevents {{ worker_connections 8192; }}\nhttp {{\n\
             access_log {scratch}/access.log combined buffer=64k flush=1s;\nlog_not_found off;\n\
             types {{ image/jpeg jpg; image/gif gif; video/mp4 mp4; }}\n\
             {sending}\ntcp_nodelay on;\n\
             open_file_cache max=10000 inactive=60s;\nopen_file_cache_valid 60s;\nopen_file_cache_errors on;\n\
             keepalive_timeout 600s;\nkeepalive_requests 1000000000;\n\
             client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;\n\
             fastcgi_temp_path {scratch}/fastcgi; uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;\n\
             {certificate}server {{ listen {address} backlog=4096{tls}; root {root}; }}\n}}\n"
        )
    }
}
