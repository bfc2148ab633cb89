//! Every example of every file, as fal gets it and as it is charged. The request stands in the snapshot's header.

use serde_json::json;

use super::super::Size;
use super::{Strictness, catalogue, offered, parse};
use crate::domain::Fixed;
use crate::providers::fal::translate;

#[test]
fn every_example_becomes_the_body_and_the_price_that_it_should() {
    let catalogue = catalogue();
    for model in offered(catalogue) {
        assert!(!model.examples.is_empty(), "`{}` has no example", model.id);
        for (number, example) in model.examples.iter().enumerate() {
            let wish = parse(example.request.as_bytes()).unwrap();
            let order = catalogue.order(&wish, Strictness::Strict).unwrap();
            let quote = order.terms(Fixed::ONE).unwrap().quote().unwrap();
            // Delivered as ordered, a size that nobody knew is 1024x1024, every input image has one megapixel.
            let size = order.size().unwrap_or(Size { width: 1024, height: 1024 });
            let delivered = vec![Some(size); order.count() as usize];
            let inputs = i64::try_from(order.input_images().count()).unwrap();
            let inputs = Fixed::from_whole(inputs).unwrap();
            let units = quote.megapixels.checked_add(inputs);
            let charge = order.terms(Fixed::ONE).unwrap().charge(&delivered, units).unwrap();
            let mut result = json!({
                "endpoint": order.endpoint(),
                "body": translate::body(&order),
                "cost": quote.cost,
                "megapixels": quote.megapixels,
            });
            if charge.cost != quote.cost {
                result["charged"] = json!(charge.cost);
            }
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path("../snapshots");
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.set_description(format!("{}\n{}", example.title, example.request.trim()));
            let name = format!("{}-{}", model.id.replace('/', "-"), number + 1);
            settings.bind(|| insta::assert_json_snapshot!(name, result));
        }
    }
}
