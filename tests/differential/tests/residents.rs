//! Whether a process is of a resident: the headers say what `waylay_core::Resident` says.

use waylay_abi as abi;
use waylay_core::{FileId, Mark, Process, Resident};
use waylay_differential::recognises;
use waylay_engine_ebpf::{Residence, encode_residence};
use zerocopy::FromZeros;

const VALUES: [u64; 3] = [0, 1, 1 << 40];

/// Every mark, every process and every cgroup of a few values.
#[test]
fn the_headers_recognise_whom_core_recognises() {
    let files = VALUES.iter().flat_map(|&device| VALUES.map(|inode| FileId { device, inode }));
    let uids = [0, 1, u32::MAX];
    let marks = [Mark::Cgroup].into_iter().chain(files.clone().map(Mark::Exe)).chain(uids.map(Mark::Uid));
    let mut recognised = 0;
    for (mark, cgroup) in marks.flat_map(|mark| VALUES.map(|cgroup| (mark, cgroup))) {
        let resident = Resident { cgroup, mark };
        let mut tables = Box::new(abi::Tables::new_zeroed());
        encode_residence(&Residence { resident, level: 3, hooked: Vec::new() }, 0, 5, &mut tables);
        let service = &tables.services[5];
        for (exe, uid) in files.clone().flat_map(|exe| uids.map(|uid| (exe, uid))) {
            let process = Process { exe, uid, ..Process::default() };
            let (exe_device, exe_inode) = (exe.device, exe.inode);
            let written = abi::Process { exe_device, exe_inode, uid, ..abi::Process::new_zeroed() };
            for ancestor in VALUES {
                let wanted = resident.recognises(&process, ancestor == cgroup);
                assert_eq!(
                    recognises(service, &written, ancestor),
                    wanted,
                    "{resident:?} {process:?} {ancestor}"
                );
                recognised += u32::from(wanted);
            }
        }
    }
    assert!(recognised > 0);
}

#[test]
fn nobody_is_of_a_service_that_is_no_resident() {
    let (service, process) = (abi::Service::new_zeroed(), abi::Process::new_zeroed());
    assert!(!recognises(&service, &process, 0));
}
