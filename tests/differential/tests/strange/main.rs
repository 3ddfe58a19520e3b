//! No bytes are too strange for what the kernel's side does with a handle.

mod handle;

#[test]
fn no_handle_is() {
    waylay_corpus::replay("handle", handle::check);
}
