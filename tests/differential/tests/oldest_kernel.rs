//! What Linux 6.1, the oldest kernel that is supported, asks of a program and later ones no longer do, so that
//! whoever changes the programs hears of it without that kernel. `make test-kernels` asks the kernel itself.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use waylay_engine_ebpf::OBJECT;

const CODE: u64 = 4; // SHF_EXECINSTR
const INSTRUCTION: usize = 8;

/// One instruction of eBPF (RFC 9669).
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    offset: i16,
}

/// Where the processor goes from an instruction, and whether by a branch.
#[derive(Clone, Copy, Debug)]
struct Edge {
    to: usize,
    branch: bool,
}

/// Until Linux 6.2 `check_cfg()` of the verifier took an edge to an instruction that it was still following for
/// a loop only if that edge was a branch, and called it a back-edge otherwise (`kernel/bpf/verifier.c`).
#[test]
fn no_loop_falls_through_to_its_head() {
    let sections = code(OBJECT);
    assert!(sections.len() > 5, "where have the programs gone?");
    for (name, instructions) in sections {
        assert_eq!(back_edge(&instructions), None, "section {name}: see wl_query_chain() for what helps");
    }
}

#[test]
fn a_loop_that_does_is_found() {
    let (step, exit) = (Instruction { code: 0x07, offset: 0 }, Instruction { code: 0x95, offset: 0 });
    let jump = |code, offset| Instruction { code, offset };
    // A loop that starts in its middle: 0 leads to 2, and 1 runs on into it.
    assert_eq!(back_edge(&[jump(0x05, 1), step, jump(0x15, -2), exit]), Some((1, 2)));
    assert_eq!(back_edge(&[step, jump(0x15, -2), exit]), None);
}

/// The first edge that is no branch and leads back to an instruction on the way to it.
fn back_edge(instructions: &[Instruction]) -> Option<(usize, usize)> {
    let mut begun = vec![false; instructions.len()];
    let mut done = begun.clone();
    for start in 0..instructions.len() {
        let mut path = if begun[start] { Vec::new() } else { vec![(start, edges(instructions, start))] };
        begun[start] = true;
        while let Some((at, rest)) = path.last_mut() {
            let at = *at;
            match rest.pop() {
                None => {
                    done[at] = true;
                    path.pop();
                }
                Some(Edge { to, branch }) if begun[to] => {
                    if !branch && !done[to] {
                        return Some((at, to));
                    }
                }
                Some(Edge { to, .. }) => {
                    begun[to] = true;
                    path.push((to, edges(instructions, to)));
                }
            }
        }
    }
    None
}

/// In the order in which the verifier does not follow them: it is the last that goes first.
fn edges(instructions: &[Instruction], at: usize) -> Vec<Edge> {
    let Instruction { code, offset } = instructions[at];
    let on = |steps, branch| Edge { to: at + steps, branch };
    let away = Edge { to: (at + 1).wrapping_add_signed(offset.into()), branch: true };
    let is_jump = matches!(code & 0x07, 0x05 | 0x06);
    let edges = match (is_jump, code & 0xf0) {
        (true, 0x90) => vec![],
        (true, 0x00) => vec![away],
        (true, 0x80) => vec![on(1, false)],
        (true, _) => vec![away, on(1, true)],
        // A constant of 64 bits takes two.
        (false, _) if code == 0x18 => vec![on(2, false)],
        (false, _) => vec![on(1, false)],
    };
    edges.into_iter().filter(|edge| edge.to < instructions.len()).collect()
}

/// The sections of an ELF file that hold instructions (elf(5)).
fn code(object: &[u8]) -> Vec<(String, Vec<Instruction>)> {
    let number = |at: usize, bytes: usize| {
        let value =
            object[at..at + bytes].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).unwrap()
    };
    let (table, count, names) = (number(0x28, 8), number(0x3c, 2), number(0x3e, 2));
    let headers: Vec<usize> = (0..count).map(|index| table + 64 * index).collect();
    let name = |header: usize| {
        let text = &object[number(headers[names] + 24, 8) + number(header, 4)..];
        let end = text.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(text[..end].to_vec()).unwrap()
    };
    let is_code = |header: &&usize| number(**header + 8, 8) as u64 & CODE != 0;
    headers
        .iter()
        .filter(is_code)
        .map(|header| {
            let (start, length) = (number(header + 24, 8), number(header + 32, 8));
            (name(*header), object[start..start + length].chunks(INSTRUCTION).map(instruction).collect())
        })
        .collect()
}

fn instruction(bytes: &[u8]) -> Instruction {
    Instruction { code: bytes[0], offset: i16::from_le_bytes([bytes[2], bytes[3]]) }
}
