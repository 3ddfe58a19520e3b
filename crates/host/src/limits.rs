//! How many descriptors a process may have (getrlimit(2)): the usual 1024 are few for a supervisor, which has a copy of each socket
//! that somebody waits with.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many as it may; gives how many it might have had before, if there was an end to that.
pub(crate) fn raise_descriptors() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    // To be allowed fewer is no reason not to go on.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
    before.current
}

/// As it was, for programs that go by it.
pub(crate) fn restore_descriptors(before: Option<u64>) {
    let now = getrlimit(Resource::Nofile);
    let _no_more_than_now = setrlimit(Resource::Nofile, Rlimit { current: before, ..now });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_raised_is_as_it_was_again() {
        let before = getrlimit(Resource::Nofile);
        assert_eq!(raise_descriptors(), before.current);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        restore_descriptors(before.current);
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}
