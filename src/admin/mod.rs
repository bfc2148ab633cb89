//! The operators' HTTP face: OpenAI's organization API, and what it has no word for.

mod admin_keys;
mod api_keys;
mod audit_logs;
mod controls;
mod costs;
mod erasures;
mod events;
mod export;
mod generations;
mod history;
mod keys;
mod model_aliases;
mod organization_projects;
mod permits;
mod projects;
mod refunds;
mod reports;
mod service_accounts;
mod shapes;
mod spend_alerts;
mod spend_limits;
mod usage;

use crate::api::access::{Endpoint, endpoint};

pub use history::GenerationHistory;

/// What the paths of the admin API begin with.
pub const PREFIXES: [&str; 2] = ["/v1/organization", "/admin"];

/// The routes of the admin API.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint!(generations::list_generations),
        endpoint!(generations::retrieve_generation),
        endpoint!(erasures::erase_generation_content),
        endpoint!(erasures::erase_project_content),
        endpoint!(refunds::create_generation_refund),
        endpoint!(reports::list_holds),
        endpoint!(reports::list_margins),
        endpoint!(events::export_billing_events),
        endpoint!(projects::retrieve_project),
        endpoint!(projects::update_project),
        endpoint!(projects::create_project_credit),
        endpoint!(projects::update_organization),
        endpoint!(keys::update_key),
        endpoint!(model_aliases::list_model_aliases),
        endpoint!(model_aliases::set_model_alias),
        endpoint!(model_aliases::delete_model_alias).at("/admin/v1/model_aliases/{id:.+}"),
        endpoint!(usage::list_image_usage),
        endpoint!(costs::list_costs),
        endpoint!(organization_projects::create_project),
        endpoint!(organization_projects::list_projects),
        endpoint!(organization_projects::retrieve_project),
        endpoint!(organization_projects::update_project),
        endpoint!(organization_projects::archive_project),
        endpoint!(service_accounts::create_service_account),
        endpoint!(service_accounts::list_service_accounts),
        endpoint!(service_accounts::retrieve_service_account),
        endpoint!(service_accounts::update_service_account),
        endpoint!(service_accounts::delete_service_account),
        endpoint!(service_accounts::create_service_account_api_key),
        endpoint!(api_keys::list_project_api_keys),
        endpoint!(api_keys::retrieve_project_api_key),
        endpoint!(api_keys::update_project_api_key),
        endpoint!(api_keys::delete_project_api_key),
        endpoint!(api_keys::rotate_key),
        endpoint!(admin_keys::create_admin_api_key),
        endpoint!(admin_keys::list_admin_api_keys),
        endpoint!(admin_keys::retrieve_admin_api_key),
        endpoint!(admin_keys::delete_admin_api_key),
        endpoint!(audit_logs::list_audit_logs),
        endpoint!(spend_limits::retrieve_project_spend_limit),
        endpoint!(spend_limits::update_project_spend_limit),
        endpoint!(spend_limits::delete_project_spend_limit),
        endpoint!(spend_limits::retrieve_spend_limit),
        endpoint!(spend_limits::update_spend_limit),
        endpoint!(spend_limits::delete_spend_limit),
        endpoint!(spend_alerts::create_project_spend_alert),
        endpoint!(spend_alerts::list_project_spend_alerts),
        endpoint!(spend_alerts::retrieve_project_spend_alert),
        endpoint!(spend_alerts::update_project_spend_alert),
        endpoint!(spend_alerts::delete_project_spend_alert),
        endpoint!(spend_alerts::create_spend_alert),
        endpoint!(spend_alerts::list_spend_alerts),
        endpoint!(spend_alerts::retrieve_spend_alert),
        endpoint!(spend_alerts::update_spend_alert),
        endpoint!(spend_alerts::delete_spend_alert),
        endpoint!(controls::list_project_rate_limits),
        endpoint!(controls::update_project_rate_limit),
        endpoint!(controls::retrieve_model_permissions),
        endpoint!(controls::update_model_permissions),
        endpoint!(controls::delete_model_permissions),
        endpoint!(controls::retrieve_project_data_retention),
        endpoint!(controls::update_project_data_retention),
        endpoint!(controls::retrieve_data_retention),
        endpoint!(controls::update_data_retention),
    ]
}
