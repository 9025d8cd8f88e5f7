//! `millpond doctor`.

pub(crate) mod finding;
mod machine;
mod service;

use crate::common::one_line;
use crate::doctor::finding::{Finding, FindingLevel};
use crate::sandbox::SandboxSupport;
use crate::serve::{self, Serve};
use crate::settings::ResolvedSettings;
use anyhow::{Context, Result};
use clap::{ArgMatches, Args};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    serve: Serve,
}

impl Doctor {
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start the runtime")?;
        let settings = ResolvedSettings::<Serve>::resolve(matches);
        let settings = settings.and_then(|settings| serve::check(&settings).map(|()| settings));
        let findings = match settings {
            Ok(settings) => runtime.block_on(examine(&settings)),
            Err(error) => {
                let remedy =
                    "correct the option or the line; millpond config check FILE checks a file";
                vec![Finding::fail("settings", one_line(&error), remedy)]
            }
        };
        let level = findings.iter().map(|finding| finding.level).max();
        let level = level.unwrap_or(FindingLevel::Ok);
        let mut stdout = io::stdout().lock();
        if self.json {
            let json = serde_json::json!({ "level": level, "findings": findings });
            writeln!(stdout, "{json:#}")?;
        } else {
            for finding in &findings {
                writeln!(stdout, "{finding}")?;
            }
        }
        Ok(ExitCode::from(u8::from(level == FindingLevel::Fail)))
    }
}

async fn examine(settings: &ResolvedSettings<Serve>) -> Vec<Finding> {
    let serve = &settings.options;
    let mut findings = vec![Finding::ok(
        "settings",
        match settings.file() {
            Some(path) => format!("{} is valid", path.display()),
            None => "no configuration file".to_owned(),
        },
    )];
    // `serve::check` has converted them.
    let Ok(limits) = serve.limits() else {
        return findings;
    };
    let folder = serve.location().folder();
    findings.extend(machine::check(limits.memory_bytes, folder));
    findings.push(machine::sandbox(
        serve.sandbox(),
        SandboxSupport::of_kernel(),
    ));
    if let Some(folder) = folder {
        findings.extend(service::folder(folder));
    }
    #[cfg(feature = "origin")]
    if let Some(finding) = serve.check_origin().await {
        findings.push(finding);
    }
    for address in serve.listen_addresses() {
        let finding = service::address("listen", &address, serve.sharing(), false);
        findings.push(finding.await);
    }
    if let Some((address, is_optional)) = serve.admin_address() {
        let finding = service::address("admin", &address, serve.sharing(), is_optional);
        findings.push(finding.await);
    }
    if let Some((certificate, key)) = serve.certificate_files() {
        findings.push(service::certificate(certificate, key, SystemTime::now()));
    }
    if let Some(Err(error)) = serve.check_report_dir() {
        let remedy = "name a folder that the server's user can write to with --report-dir";
        findings.push(Finding::fail("reports", one_line(&error), remedy));
    }
    let config = serve.config(&settings.component);
    let component = service::component(serve.component(), folder, &config, limits);
    findings.push(component.await);
    findings
}
