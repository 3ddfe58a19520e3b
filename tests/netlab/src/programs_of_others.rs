//! Programs of somebody else's in a cgroup.

use std::{path::Path, process::Command};

use crate::process::python;

const ATTACH: &str = include_str!("../scripts/attach_program.py");

/// Where a program is attached, and beside whom: `enum bpf_prog_type`, `enum bpf_attach_type` and the flags of linux/bpf.h.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// The kind of program.
    pub program: u32,
    /// The hook.
    pub hook: u32,
    /// How it goes with others.
    pub flags: u32,
}

impl Foreign {
    /// Sees each packet that leaves, beside others (`BPF_F_ALLOW_MULTI`).
    pub const EGRESS: Self = Self { program: 8, hook: 1, flags: 2 };
    /// Sees each packet that comes in.
    pub const INGRESS: Self = Self { program: 8, hook: 0, flags: 2 };
    /// Sees where IPv4 sockets connect.
    pub const CONNECT4: Self = Self { program: 18, hook: 10, flags: 2 };
    /// Sees what TCP does.
    pub const SOCK_OPS: Self = Self { program: 13, hook: 3, flags: 2 };

    /// Nobody may attach below.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self { flags: 0, ..self }
    }

    /// Whoever attaches below takes its place (`BPF_F_ALLOW_OVERRIDE`).
    #[must_use]
    pub const fn until_replaced(self) -> Self {
        Self { flags: 1, ..self }
    }

    /// Attaches one that lets everything pass; it stays as long as the cgroup. Returns its number.
    pub fn attach(self, cgroup: &Path, name: &str) -> u64 {
        self.attach_with(cgroup, name, &[])
    }

    /// One that drops what goes to these ports, or does what the script says of other words.
    pub fn attach_with(self, cgroup: &Path, name: &str, words: &[&str]) -> u64 {
        let Self { program, hook, flags } = self;
        let mut attach = Command::new(python());
        attach.args(["-c", ATTACH]).arg(cgroup).arg(name);
        attach.args([program, hook, flags].map(|number| number.to_string())).args(words);
        let output = attach.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}
