//! What orders cost.

use proptest::prelude::*;
use serde_json::json;

use super::super::{Charge, Order, Size};
use super::order;
use crate::domain::{Fixed, Money};

fn harbour(model: &str, size: &str, count: u32) -> Order {
    order(&json!({ "model": model, "prompt": "a quiet harbour", "size": size, "n": count })).unwrap()
}

fn usd(text: &str) -> Money {
    text.parse().unwrap()
}

#[test]
fn megapixels_are_rounded_up_for_each_image() {
    for (size, megapixels, price) in [
        ("512x512", 1, "0.025"),
        ("1024x1024", 1, "0.025"),
        ("1056x1024", 2, "0.05"),
        ("1536x1024", 2, "0.05"),
        ("1536x1536", 3, "0.075"),
    ] {
        let quote = harbour("flux/dev", size, 1).terms(Fixed::ONE).unwrap().quote().unwrap();
        assert_eq!((quote.megapixels, quote.price), (Fixed::from_whole(megapixels).unwrap(), usd(price)), "{size}");
        let four = harbour("flux/dev", size, 4).terms(Fixed::ONE).unwrap().quote().unwrap();
        assert_eq!(four.megapixels, Fixed::from_whole(4 * megapixels).unwrap(), "{size}");
    }
}

#[test]
fn the_markup_changes_the_price_and_not_the_cost() {
    let quote = harbour("flux-realism", "1024x768", 2).terms("1.3".parse().unwrap()).unwrap().quote().unwrap();
    assert_eq!((quote.price, quote.cost), (usd("0.091"), usd("0.07")));
}

#[test]
fn what_was_delivered_is_charged() {
    let order = harbour("flux/dev", "1024x768", 4);
    let half = order.terms(Fixed::ONE).unwrap().charge(&[None, Some(Size { width: 1024, height: 768 })], None).unwrap();
    assert_eq!((half.price, half.images), (usd("0.05"), 2));
    let nothing = order.terms(Fixed::ONE).unwrap().charge(&[], None).unwrap();
    let free = Charge { price: Money::ZERO, cost: Money::ZERO, megapixels: Fixed::ZERO, images: 0 };
    assert_eq!(nothing, free);
}

#[test]
fn more_than_was_ordered_costs_the_provider_s_price_and_no_more_than_the_quote() {
    let order = harbour("flux/dev", "1024x768", 1);
    let large = order.terms(Fixed::ONE).unwrap().charge(&[Some(Size { width: 2048, height: 2048 })], None).unwrap();
    assert_eq!((large.price, large.cost), (usd("0.025"), usd("0.1")));
    let many = order.terms(Fixed::ONE).unwrap().charge(&[None, None, None], None).unwrap();
    assert_eq!((many.price, many.cost), (usd("0.025"), usd("0.075")));
}

#[test]
fn an_amount_out_of_range_is_an_error_and_not_a_wrong_amount() {
    let order = harbour("flux/dev", "1536x1536", 4);
    let huge = Fixed::from_billionths(i64::MAX);
    assert!(order.terms(huge).unwrap().quote().is_ok());
    let absurd = [Some(Size { width: u32::MAX, height: u32::MAX }); 1000];
    assert!(order.terms(Fixed::ONE).unwrap().charge(&absurd, None).is_err());
}

fn edit(images: usize) -> Order {
    let urls = vec!["https://example.com/a.png"; images];
    let request = json!({ "model": "flux-2/edit", "prompt": "a", "size": "1024x1024", "image_urls": urls });
    order(&request).unwrap()
}

#[test]
fn input_images_are_held_at_their_largest_and_charged_as_the_provider_counts_them() {
    let order = edit(2);
    // One megapixel made, four held for each of two input images.
    assert_eq!(order.terms(Fixed::ONE).unwrap().quote().unwrap().price, usd("0.108"));
    let charged = |units: Option<i64>| {
        let units = units.map(|units| Fixed::from_whole(units).unwrap());
        order.terms(Fixed::ONE).unwrap().charge(&[None], units).unwrap().price
    };
    assert_eq!(charged(Some(3)), usd("0.036"));
    assert_eq!(charged(Some(6)), usd("0.072"));
    assert_eq!(charged(Some(1)), usd("0.036"), "each counts for at least one");
    assert_eq!(charged(Some(1_000_000)), usd("0.108"), "and for four at most");
    assert_eq!(charged(None), usd("0.108"));
    assert_eq!(order.terms(Fixed::ONE).unwrap().unit_cost(), Some(usd("0.012")));
}

#[test]
fn a_price_follows_the_resolution() {
    for (resolution, price) in [("1K", "0.15"), ("2K", "0.15"), ("4K", "0.3")] {
        let request = json!({ "model": "nano-banana-pro", "prompt": "a fox", "resolution": resolution });
        assert_eq!(
            order(&request).unwrap().terms(Fixed::ONE).unwrap().quote().unwrap().price,
            usd(price),
            "{resolution}"
        );
    }
}

#[test]
fn a_price_follows_quality_and_size() {
    for (quality, size, price) in [
        ("low", "1024x1024", "0.009"),
        ("low", "1536x1024", "0.013"),
        ("medium", "1024x1024", "0.034"),
        ("medium", "1024x1536", "0.051"),
        ("medium", "1536x1024", "0.05"),
        ("high", "1024x1024", "0.133"),
        ("high", "1024x1536", "0.2"),
        ("high", "1536x1024", "0.199"),
    ] {
        let request = json!({ "model": "gpt-image-1.5", "prompt": "ab", "quality": quality, "size": size });
        assert_eq!(
            order(&request).unwrap().terms(Fixed::ONE).unwrap().quote().unwrap().price,
            usd(price),
            "{quality} {size}"
        );
    }
}

#[test]
fn images_that_may_become_several_are_held_for_all_and_charged_as_delivered() {
    let request =
        json!({ "model": "fal-ai/bytedance/seedream/v4/text-to-image", "prompt": "a", "n": 2, "max_images": 3 });
    let order = order(&request).unwrap();
    assert_eq!((order.count(), order.terms(Fixed::ONE).unwrap().quote().unwrap().price), (6, usd("0.18")));
    assert_eq!(order.terms(Fixed::ONE).unwrap().charge(&[None; 4], None).unwrap().price, usd("0.12"));
}

fn any_size() -> impl Strategy<Value = Option<Size>> {
    prop::option::of((1..4096_u32, 1..4096_u32).prop_map(|(width, height)| Size { width, height }))
}

proptest! {
    #[test]
    fn nobody_pays_more_than_the_quote_or_less_than_nothing(
        model in prop::sample::select(vec!["flux/dev", "flux-realism"]),
        (across, down) in (16..=48_u32, 16..=48_u32),
        count in 1..=4_u32,
        delivered in prop::collection::vec(any_size(), 0..6),
        markup in 0..5_000_000_000_i64,
    ) {
        let order = harbour(model, &format!("{}x{}", across * 32, down * 32), count);
        let markup = Fixed::from_billionths(markup);
        let quote = order.terms(markup).unwrap().quote().unwrap();
        let charge = order.terms(markup).unwrap().charge(&delivered, None).unwrap();
        prop_assert!(charge.price <= quote.price);
        prop_assert!(charge.price >= Money::ZERO && charge.cost >= Money::ZERO);
    }

    #[test]
    fn all_that_was_ordered_costs_what_was_quoted(
        (across, down) in (16..=48_u32, 16..=48_u32),
        count in 1..=4_u32,
        markup in 0..5_000_000_000_i64,
    ) {
        let order = harbour("flux-realism", &format!("{}x{}", across * 32, down * 32), count);
        let markup = Fixed::from_billionths(markup);
        let quote = order.terms(markup).unwrap().quote().unwrap();
        let charge = order.terms(markup).unwrap().charge(&vec![order.size(); count as usize], None).unwrap();
        prop_assert_eq!((charge.price, charge.cost, charge.megapixels), (quote.price, quote.cost, quote.megapixels));
    }

    #[test]
    fn more_images_never_cost_less(
        (across, down) in (16..=48_u32, 16..=48_u32),
        count in 1..=3_u32,
    ) {
        let size = format!("{}x{}", across * 32, down * 32);
        let fewer = harbour("flux/dev", &size, count).terms(Fixed::ONE).unwrap().quote().unwrap();
        let more = harbour("flux/dev", &size, count + 1).terms(Fixed::ONE).unwrap().quote().unwrap();
        prop_assert!(fewer.price < more.price);
    }
}
