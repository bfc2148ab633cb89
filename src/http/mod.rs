//! What every HTTP answer of ours has in common: the one error shape, request ids, the frame around each request.

mod edge;
mod frame;
mod headers;
mod path;
mod problem;

pub use edge::{BodyMemory, Edge, Stopping};
pub use frame::{AuthenticationFailed, FrameTools, LoggedCaller, PrivatePath, RequestContext, Verbatim, frame};
pub use problem::{Code, LONGEST_MESSAGE, Problem, ProblemBody, short_path, shortened};
