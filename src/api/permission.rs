//! Whether a caller may have what it asks for: the models of its key, the policy of its project.

use serde_json::json;

use crate::accounts::Caller;
use crate::catalogue::Order;
use crate::gateway::Accepted;
use crate::http::{Code, Problem};

/// The parameter that switches a model's safety checker.
const SAFETY_CHECKER: &str = "enable_safety_checker";

/// Refuses what the key or the project's policy does not allow. Nothing has been spent.
pub fn permit(caller: &Caller, accepted: &mut Accepted) -> Result<(), Problem> {
    let order: &Order = &accepted.order;
    permit_model(caller, &order.model.id, &order.requested)?;
    for named in order.switches.fallbacks.iter().flatten() {
        permit_model(caller, named, named)?;
    }
    // Fallbacks that only the model's file names are left out where the caller may not use them.
    accepted.fallbacks.retain(|fallback| permit_model(caller, &fallback.model.id, &fallback.model.id).is_ok());
    let Some(policy) = &caller.policy else { return Ok(()) };
    let unchecked = |order: &Order| order.normalized().get(SAFETY_CHECKER).is_some_and(|value| value == &json!(false));
    if policy.require_safety_checker
        && (unchecked(&accepted.order) || accepted.fallbacks.iter().any(|other| unchecked(other)))
    {
        let message = "this project's policy wants the safety checker on: send `enable_safety_checker: true`";
        return Err(Problem::new(Code::PermissionDenied, message).param(SAFETY_CHECKER));
    }
    match policy.max_price_usd {
        Some(most) if accepted.quote.price > most => {
            let message = format!(
                "this request may cost {} USD, and this project's policy allows {most} USD for one",
                accepted.quote.price
            );
            let data =
                json!({"kind": "err_request_too_expensive", "limit_usd": most, "needed_usd": accepted.quote.price});
            Err(Problem::new(Code::PermissionDenied, message).data(data))
        }
        _ => Ok(()),
    }
}

/// Whether the caller may use a model, asked for by this name.
fn permit_model(caller: &Caller, model: &str, requested: &str) -> Result<(), Problem> {
    let whose = if !caller.may_use(model, requested) {
        "key"
    } else if caller.policy.as_ref().is_some_and(|policy| !policy.may_use(model, requested)) {
        "project"
    } else {
        return Ok(());
    };
    let message = format!("this {whose} may not use the model `{model}`");
    Err(Problem::new(Code::PermissionDenied, message).param("model"))
}
