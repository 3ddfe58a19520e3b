//! The headers in the hands of compilers that are told to be strict.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use waylay::winsock::code_of_errno;
use waylay_headers::{Compiler, WINDOWS, compilers, headers, program, root, source};

const C: &str = "int main(void) { return 0; }\n";

/// Those that both languages may include, by name.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(headers()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    names.retain(|name| name != "waylay_lengths.h");
    names
}

#[test]
fn each_header_compiles_alone() {
    for name in names() {
        let (_directory, path) = source(&format!("#include <{name}>\n{C}"));
        compilers().iter().for_each(|compiler| compiler.accepts(&path));
    }
}

#[test]
fn all_headers_compile_together_in_either_order_and_twice() {
    let include = |name: &String| format!("#include <{name}>\n");
    let there: String = names().iter().map(include).collect();
    let back: String = names().iter().rev().map(include).collect();
    for order in [format!("{there}{back}{C}"), format!("{back}{there}{C}")] {
        let (_directory, path) = source(&order);
        compilers().iter().for_each(|compiler| compiler.accepts(&path));
    }
}

/// Sources that ask for Linux's own interfaces as well.
#[test]
fn the_systems_headers_may_come_before_and_after() {
    let systems = "#include <netinet/in.h>\n#include <linux/netfilter_ipv4.h>\n#include <linux/netfilter_ipv6/ip6_tables.h>\n\
                   #include <sys/ioctl.h>\n#include <sys/socket.h>\n#include <poll.h>\n";
    let ours = "#include <winsock2.h>\n#include <mstcpip.h>\n";
    for order in [format!("{systems}{ours}{C}"), format!("{ours}{systems}{C}")] {
        let (_directory, path) = source(&order);
        // The kernel's netfilter headers are neither for ISO C nor for C++.
        let gnu = compilers().into_iter().filter(|compiler| compiler.standard == "gnu17");
        gnu.for_each(|compiler| compiler.accepts(&path));
    }
}

/// Also a comparison: what the source asserts of values and layouts holds for both.
#[test]
fn one_source_compiles_here_and_for_windows() {
    for compiler in compilers().iter().chain(&WINDOWS) {
        compiler.accepts(&program("consumer.c"));
    }
}

#[test]
fn the_redirect_service_compiles_here_and_for_windows() {
    let service = root().join("examples/redirect-service.cpp");
    for compiler in compilers().iter().chain(&WINDOWS).filter(|compiler| compiler.language == "c++") {
        compiler.accepts(&service);
    }
}

#[test]
fn ours_are_refused_on_windows() {
    let (_directory, path) = source(&format!("#include \"{}/winsock2.h\"\n{C}", headers().display()));
    let output = WINDOWS[0].run(&path, &["-fsyntax-only"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("include the system's own winsock2.h"), "{said}");
}

#[test]
fn in_cpp_lengths_may_be_int_or_socklen_t_and_errors_go_with_them() {
    for compiler in compilers().iter().filter(|compiler| compiler.language == "c++") {
        let printed = compiler.prints(&program("lengths.cpp"));
        let codes: Vec<i32> = printed.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(codes.len(), 200);
        for (errno, code) in (0..).zip(codes).skip(1) {
            assert_eq!(code, code_of_errno(errno), "errno {errno}, {compiler:?}");
        }
    }
}

/// A length of another type is a mistake and must not be taken for one of these.
#[test]
fn in_cpp_lengths_of_other_types_are_refused() {
    let accepts = |length: &str, compiler: &Compiler| {
        let call = format!("{length} n = 16; return getsockname(s, a, &n);");
        let text = format!(
            "#include <winsock2.h>\nint f(int, sockaddr *);\nint f(int s, sockaddr *a) {{ {call} }}\n"
        );
        let (_directory, path) = source(&text);
        compiler.run(&path, &["-fsyntax-only"]).status.success()
    };
    for compiler in compilers().iter().filter(|compiler| compiler.language == "c++") {
        for length in ["long", "short", "unsigned long", "char"] {
            assert!(!accepts(length, compiler), "{length}, {compiler:?}");
        }
        assert!(accepts("int", compiler) && accepts("socklen_t", compiler), "{compiler:?}");
    }
}

#[test]
fn each_header_says_what_it_is_and_whose_page_it_follows() {
    for name in names() {
        let text = std::fs::read_to_string(headers().join(&name)).unwrap();
        assert!(text.starts_with("/*\n * "), "{name}");
        let of_windows = name != "waylay_context.h";
        assert!(!of_windows || text.contains("https://learn.microsoft.com/windows/"), "{name}");
    }
}
