/// The version in every answer and handle.
pub const ABI_VERSION: u32 = 2;

/// The level of waylay's socket options.
pub const SOL_WAYLAY: i32 = 0x5759;
/// Asks an accepted socket for the [`Handle`](crate::Handle) of its flow.
pub const QUERY_RECORDS: i32 = 220;
/// Asks an accepted socket for the [`Context`](crate::Context) of its flow.
pub const QUERY_CONTEXT: i32 = 221;
/// Sets a [`Handle`](crate::Handle) on an outbound socket before it connects.
pub const SET_RECORDS: i32 = 222;
/// Asks an accepted socket for the address the application asked for.
pub const QUERY_ORIGINAL_DST: i32 = 230;
/// Asks an accepted socket for the [`NamedChain`](crate::NamedChain) behind it.
pub const QUERY_CHAIN: i32 = 231;
/// Names the datagram flow that this thread asks a service's UDP socket about, by its
/// [`DatagramPath`](crate::DatagramPath).
pub const SELECT_FLOW: i32 = 232;
/// Takes a [`Reply`](crate::Reply): makes a flow for who answers in the destination's stead, and selects it.
pub const OPEN_REPLY: i32 = 233;
/// Asks for the [`Datagram`](crate::Datagram) of the selected flow.
pub const QUERY_DATAGRAM: i32 = 234;
/// Takes a [`UnreachableReport`](crate::UnreachableReport): what became of a datagram at its destination.
pub const REPORT_ERROR: i32 = 235;
