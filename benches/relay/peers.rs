//! The proxies of others, each with one thread and a fixed upstream.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use tempfile::TempDir;
use waylay_benches::{peer, peer_file};

/// One that their unprivileged users may look into.
pub(crate) fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// With splice(2) for every byte: `splice-auto` leaves the short exchanges of a bench to copying, and most of the rest.
pub(crate) fn haproxy(directory: &Path, listen: &str, upstream: &str) -> Command {
    let configuration = directory.join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 5000\n  tune.pipesize 524288\n\
         defaults\n  mode tcp\n  option splice-request\n  option splice-response\n\
         \x20 timeout connect 10s\n  timeout client 600s\n  timeout server 600s\n\
         listen all\n  bind {listen} backlog 4096\n  server only {upstream}\n"
    );
    fs::write(&configuration, text).unwrap();
    let mut command = peer("haproxy");
    command.args(["-q", "-db"]).arg("-f").arg(configuration);
    command
}

pub(crate) fn nginx(directory: &Path, listen: &str, upstream: &str) -> Command {
    let module = peer_file(Path::new("usr/lib/nginx/modules/ngx_stream_module.so"));
    let configuration = directory.join("nginx.conf");
    let text = format!(
        "daemon off;\nworker_processes 1;\nuser nobody nogroup;\npid nginx.pid;\nerror_log stderr crit;\n\
         load_module {};\nevents {{ worker_connections 10000; }}\n\
         stream {{ server {{ listen {listen} backlog=4096; proxy_pass {upstream}; proxy_buffer_size 64k; }} }}\n",
        module.display()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = peer("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(directory).arg("-c").arg(configuration);
    command
}
