//! The same request as curl, Python and TypeScript. The key is read from the environment, never written out.

use maud::{Markup, html};
use serde_json::{Map, Value};

/// The three, for a wish at a gateway.
pub fn snippets(base: &str, wish: &Map<String, Value>) -> Markup {
    let all = [("curl", curl(base, wish)), ("Python", python(base, wish)), ("TypeScript", typescript(base, wish))];
    html! {
        @for (name, text) in all {
            details open[name == "curl"] {
                summary { (name) }
                pre tabindex="0" data-snippet=(name) { (text) }
            }
        }
    }
}

fn pretty(wish: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(wish).unwrap_or_default()
}

fn curl(base: &str, wish: &Map<String, Value>) -> String {
    let body = pretty(wish).replace('\'', "'\\''");
    format!(
        "curl {base}/v1/images/generations \\\n  -H \"Authorization: Bearer $IMAGEGATE_KEY\" \\\n  \
         -H 'Content-Type: application/json' \\\n  -d '{body}'"
    )
}

fn python(base: &str, wish: &Map<String, Value>) -> String {
    let of = |name: &str| literal(wish.get(name).unwrap_or(&Value::Null));
    let rest: Map<String, Value> = wish
        .iter()
        .filter(|(name, _)| *name != "model" && *name != "prompt")
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    format!(
        "import os\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=\"{base}/v1\", api_key=os.environ[\"IMAGEGATE_KEY\"])\n\
         answer = client.images.generate(\n    model={},\n    prompt={},\n    extra_body={},\n)\nprint(answer.data[0].url)",
        of("model"),
        of("prompt"),
        literal(&Value::Object(rest))
    )
}

/// A value as Python writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field =
                |(name, value): (&String, &Value)| format!("{}: {}", Value::from(name.as_str()), literal(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        // JSON's texts and numbers are Python's.
        other => other.to_string(),
    }
}

fn typescript(base: &str, wish: &Map<String, Value>) -> String {
    format!(
        "const answer = await fetch(\"{base}/v1/images/generations\", {{\n  method: \"POST\",\n  headers: {{\n    \
         Authorization: `Bearer ${{process.env.IMAGEGATE_KEY}}`,\n    \"Content-Type\": \"application/json\",\n  }},\n  \
         body: JSON.stringify({}),\n}});\nconst {{ data, meta }} = await answer.json();\nconsole.log(data[0].url, meta.usage.price_usd);",
        pretty(wish)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quote_in_a_prompt_breaks_out_of_no_snippet() {
        let wish = json!({"model": "m", "prompt": "it's \"so\"\n", "n": 2, "safe": true, "seed": null});
        let wish = wish.as_object().unwrap();
        assert!(curl("http://a", wish).contains(r#"it'\''s \"so\"\n"#));
        let python = python("http://a", wish);
        assert!(
            python.contains(r#"prompt="it's \"so\"\n""#) && python.contains(r#"{"n": 2, "safe": True, "seed": None}"#),
            "{python}"
        );
    }
}
