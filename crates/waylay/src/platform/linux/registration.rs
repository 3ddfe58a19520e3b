//! What a service of the kernel's is, and the limits it runs into.

use std::{fs, os::fd::AsFd, path::PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::query_records;
use crate::error::{QueryError, StartError};

/// Asks the kernel whether the socket was created by a registered service:
/// there the query has an answer, if only that there is no record.
pub(crate) fn check_registration(socket: &impl AsFd) -> Result<(), StartError> {
    match query_records(socket) {
        Ok(_)
        | Err(
            QueryError::NotRedirected
            | QueryError::FlowEnded
            | QueryError::NotConnected
            | QueryError::Connecting
            | QueryError::Listening,
        ) => Ok(()),
        Err(QueryError::NotRegistered) => Err(StartError::NotRegistered { cgroup: own_cgroup() }),
        Err(error) => Err(StartError::Registration(error)),
    }
}

/// This process's place in the unified hierarchy (cgroups(7)): the line `0::PATH`.
fn own_cgroup() -> PathBuf {
    let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    lines.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("(unknown)").into()
}

/// A service needs two descriptors for a connection, and 1024 is the usual soft limit.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // To be allowed fewer is no reason not to serve.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::service::RedirectService;

    #[test]
    fn outside_of_a_service_it_says_so_and_names_the_cgroup() {
        let error = RedirectService::bind("127.0.0.1:0".parse().unwrap()).unwrap_err();
        let StartError::NotRegistered { cgroup } = error else { panic!("{error:?}") };
        assert!(cgroup.starts_with("/"), "{}", cgroup.display());
    }

    #[test]
    fn serving_raises_the_limit_of_descriptors_as_far_as_it_may() {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = RedirectService::with_listeners(vec![listener]).unwrap();
        service.shutdown().trigger();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(service.serve(|_| async {})).unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
