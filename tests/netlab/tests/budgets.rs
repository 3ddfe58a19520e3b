//! What the programs cost the kernel stays within a budget; `make budgets` prints both.
//!
//! The verifier gives up at 1,000,000 instructions and 512 bytes of stack. Another clang comes to other numbers, and
//! another kernel's verifier too, so the budgets leave room: what grows by half is to be looked at before it is there.

use waylay_engine_ebpf::{Cost, measure_programs};

/// The most that a program may cost.
struct Budget {
    program: &'static str,
    instructions: u32,
    verified: u32,
    stack: u32,
}

const BUDGETS: [Budget; 44] = [
    budget("wl_connect4", 10_000, 85_000, 512),
    budget("wl_connect6", 10_000, 85_000, 512),
    budget("wl_sockops", 2_300, 4_200, 416),
    budget("wl_sock_create", 4_000, 50_000, 512),
    budget("wl_socket_create", 4_000, 50_000, 512),
    budget("wl_sock_release", 850, 1_100, 224),
    budget("wl_getpeername4", 200, 230, 96),
    budget("wl_getpeername6", 220, 250, 96),
    budget("wl_getsockname4", 450, 700, 96),
    budget("wl_getsockname6", 460, 750, 96),
    budget("wl_getsockopt", 4_000, 20_000, 160),
    budget("wl_setsockopt", 3_000, 12_000, 384),
    budget("wl_bind4", 600, 3_000, 320),
    budget("wl_bind6", 700, 3_000, 352),
    budget("wl_reserve4", 500, 3_000, 320),
    budget("wl_reserve6", 500, 3_000, 320),
    budget("wl_answer4", 600, 3_000, 352),
    budget("wl_answer6", 1_200, 3_000, 416),
    budget("wl_packets", 2_300, 3_500, 384),
    budget("wl_connect_answer4", 900, 3_000, 416),
    budget("wl_connect_answer6", 900, 3_000, 416),
    budget("wl_udp_connect4", 10_000, 85_000, 512),
    budget("wl_udp_connect6", 10_000, 85_000, 512),
    budget("wl_sendmsg4", 10_000, 85_000, 512),
    budget("wl_sendmsg6", 10_000, 85_000, 512),
    budget("wl_recvmsg4", 400, 600, 256),
    budget("wl_recvmsg6", 450, 800, 256),
    budget("wl_resident_sockops", 2_300, 4_200, 416),
    budget("wl_resident_recvmsg4", 400, 600, 256),
    budget("wl_resident_recvmsg6", 450, 800, 256),
    budget("wl_resident_sendmsg4", 10_000, 85_000, 512),
    budget("wl_resident_sendmsg6", 10_000, 85_000, 512),
    budget("wl_resident_udp_connect4", 10_000, 85_000, 512),
    budget("wl_resident_udp_connect6", 10_000, 85_000, 512),
    budget("wl_resident_connect4", 10_000, 85_000, 512),
    budget("wl_resident_connect6", 10_000, 85_000, 512),
    budget("wl_note_asker", 100, 100, 160),
    budget("wl_hear_names", 3_000, 37_000, 512),
    budget("wl_carriers", 60, 100, 64),
    budget("wl_see_connection", 260, 300, 96),
    budget("wl_see_flow", 100, 200, 64),
    budget("wl_judge_flow", 250, 400, 160),
    budget("wl_judge_tuple", 100, 200, 160),
    budget("wl_judge_datagrams", 250, 400, 192),
];

const fn budget(program: &'static str, instructions: u32, verified: u32, stack: u32) -> Budget {
    Budget { program, instructions, verified, stack }
}

/// A quarter of what the verifier follows before it gives up.
const MOST_VERIFIED: u32 = 250_000;
/// Bytes, all frames together.
const MOST_STACK: u32 = 512;

#[test]
fn every_program_keeps_to_its_budget() {
    let costs = measure_programs().unwrap();
    print(&costs);
    assert!(costs.iter().all(|cost| BUDGETS.iter().any(|budget| budget.program == cost.program)));
    for Budget { program, instructions, verified, stack } in budgets_of(&costs) {
        assert!(verified <= MOST_VERIFIED && stack <= MOST_STACK, "{program} may cost more than any program");
        let cost = find(&costs, program);
        assert!(cost.instructions <= instructions, "{program}: {} instructions", cost.instructions);
        assert!(cost.verified <= verified, "{program}: {} instructions verified", cost.verified);
        assert!(cost.stack <= stack, "{program}: {} bytes of stack: {:?}", cost.stack, cost.frames);
    }
}

/// What is counted is there: the costs of the largest program cannot be next to nothing.
#[test]
fn the_costs_are_those_of_real_programs() {
    let costs = measure_programs().unwrap();
    let largest = find(&costs, "wl_connect6");
    assert!(largest.instructions > 1_000 && largest.verified > largest.instructions, "{largest:?}");
    assert!(largest.frames.len() > 5 && largest.stack > largest.frames[0], "{largest:?}");
}

/// One program is loaded only where the kernel asks it.
fn budgets_of(costs: &[Cost]) -> impl Iterator<Item = Budget> {
    let there = |budget: &Budget| {
        budget.program != "wl_socket_create" || costs.iter().any(|cost| cost.program == budget.program)
    };
    BUDGETS.into_iter().filter(there)
}

fn find<'c>(costs: &'c [Cost], program: &str) -> &'c Cost {
    costs.iter().find(|cost| cost.program == program).unwrap_or_else(|| panic!("{program} is not there"))
}

fn print(costs: &[Cost]) {
    eprintln!("each: what it costs / what it may");
    eprintln!(
        "{:<16} {:>15} {:>17} {:>11} {:>14}  frames",
        "program", "instructions", "verified", "stack", "machine code"
    );
    for Budget { program, instructions, verified, stack } in budgets_of(costs) {
        let cost = find(costs, program);
        let frames: Vec<String> = cost.frames.iter().map(ToString::to_string).collect();
        eprintln!(
            "{program:<16} {:>15} {:>17} {:>11} {:>12} B  {}",
            format!("{} / {instructions}", cost.instructions),
            format!("{} / {verified}", cost.verified),
            format!("{} / {stack}", cost.stack),
            cost.machine_code,
            frames.join("+")
        );
    }
}
