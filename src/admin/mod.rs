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

use utoipa_actix_web::service_config::ServiceConfig;

pub use history::GenerationHistory;

/// The routes of the operators' face.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(generations::list_generations)
        .service(generations::retrieve_generation)
        .service(refunds::create_generation_refund)
        .service(erasures::erase_generation_content)
        .service(erasures::erase_project_content)
        .service(reports::list_holds)
        .service(reports::list_margins)
        .service(events::export_billing_events)
        .service(projects::retrieve_project)
        .service(projects::update_project)
        .service(projects::create_project_credit)
        .service(projects::update_organization)
        .service(keys::update_key)
        .service(usage::list_image_usage)
        .service(costs::list_costs)
        .service(organization_projects::create_project)
        .service(organization_projects::list_projects)
        .service(organization_projects::retrieve_project)
        .service(organization_projects::update_project)
        .service(organization_projects::archive_project)
        .service(service_accounts::create_service_account)
        .service(service_accounts::list_service_accounts)
        .service(service_accounts::retrieve_service_account)
        .service(service_accounts::update_service_account)
        .service(service_accounts::delete_service_account)
        .service(service_accounts::create_service_account_api_key)
        .service(api_keys::list_project_api_keys)
        .service(api_keys::retrieve_project_api_key)
        .service(api_keys::update_project_api_key)
        .service(api_keys::delete_project_api_key)
        .service(api_keys::rotate_key)
        .service(admin_keys::create_admin_api_key)
        .service(admin_keys::list_admin_api_keys)
        .service(admin_keys::retrieve_admin_api_key)
        .service(admin_keys::delete_admin_api_key)
        .service(audit_logs::list_audit_logs)
        .service(spend_limits::retrieve_project_spend_limit)
        .service(spend_limits::update_project_spend_limit)
        .service(spend_limits::delete_project_spend_limit)
        .service(spend_limits::retrieve_spend_limit)
        .service(spend_limits::update_spend_limit)
        .service(spend_limits::delete_spend_limit)
        .service(spend_alerts::create_project_spend_alert)
        .service(spend_alerts::list_project_spend_alerts)
        .service(spend_alerts::retrieve_project_spend_alert)
        .service(spend_alerts::update_project_spend_alert)
        .service(spend_alerts::delete_project_spend_alert)
        .service(spend_alerts::create_spend_alert)
        .service(spend_alerts::list_spend_alerts)
        .service(spend_alerts::retrieve_spend_alert)
        .service(spend_alerts::update_spend_alert)
        .service(spend_alerts::delete_spend_alert)
        .service(controls::list_project_rate_limits)
        .service(controls::update_project_rate_limit)
        .service(controls::retrieve_model_permissions)
        .service(controls::update_model_permissions)
        .service(controls::delete_model_permissions)
        .service(controls::retrieve_project_data_retention)
        .service(controls::update_project_data_retention)
        .service(controls::retrieve_data_retention)
        .service(controls::update_data_retention);
}
