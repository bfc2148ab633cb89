//! Who may call a route. A handler states it by its first parameter; a route whose handler does not is not accepted by
//! [`Endpoint`], so that it does not compile.

mod callers;
mod routes;

use actix_web::FromRequest;

use crate::accounts::{AdminAction, Scope};

pub use callers::{
    AdminCaller, AnyProjectCaller, Open, OperatorsListener, ProjectCaller, action, authenticate, is_operator,
    require_admin, scope, too_many_failures,
};
pub(super) use callers::{authenticate_as_fal, permit};
pub use routes::{Endpoint, add_to_document, method_not_allowed, path_not_found, resources};
pub(crate) use routes::{endpoint, page};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a key.
    Open,
    /// A project key with one of these scopes; any project key if there are none.
    Project(&'static [Scope]),
    /// A project key with one of these scopes, also as fal's clients send it: `Authorization: Key <key>`.
    FalClient(&'static [Scope]),
    /// An admin key whose role permits the action.
    Admin(AdminAction),
    /// An operator with a session of the console.
    Console,
}

/// A parameter of a handler that states who may call it, and whose extraction refuses everybody else.
pub trait StatedCaller: FromRequest {
    /// Who may call.
    const ACCESS: Access;
}

/// The parameters of a handler, the first of which states who may call it.
pub trait StatesCaller {
    /// Who may call.
    const ACCESS: Access;
}

macro_rules! states_caller {
    ($($rest:ident),*) => {
        impl<C: StatedCaller, $($rest),*> StatesCaller for (C, $($rest,)*) {
            const ACCESS: Access = C::ACCESS;
        }
    };
}

states_caller!();
states_caller!(A1);
states_caller!(A1, A2);
states_caller!(A1, A2, A3);
states_caller!(A1, A2, A3, A4);
states_caller!(A1, A2, A3, A4, A5);
