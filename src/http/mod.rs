//! What every HTTP answer of ours has in common: the one error shape, request ids, the frame around each request.

mod edge;
mod frame;
mod path;
mod problem;

pub use edge::{BODY_TIME, Edge, Stopping};
pub use frame::{FrameTools, RequestContext, Verbatim, frame};
pub use path::normalize;
pub use problem::{Code, Problem, ProblemBody};
