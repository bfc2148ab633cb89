-- Ten million settled generations in the thirty days of November 2026, spread evenly over 200 keys of 100 projects, 60 models
-- and 4 sizes, which is the worst that `usage_days` can meet. For an empty database that `imagegate migrate` has made:
-- psql "$DATABASE_URL" -f benches/usage.sql
INSERT INTO projects (id, name, created_at)
SELECT md5('project ' || n)::uuid, 'project ' || n, 0 FROM generate_series(0, 99) n;
INSERT INTO balances (project_id) SELECT md5('project ' || n)::uuid FROM generate_series(0, 99) n;
INSERT INTO api_keys (id, kind, project_id, name, hash, prefix, origin, created_at)
SELECT md5('key ' || n)::uuid, 'project', md5('project ' || n % 100)::uuid, 'key ' || n, sha256(('key ' || n)::bytea), 'sk-ig-', 'api', 0
FROM generate_series(0, 199) n;

-- A moment in November, and its UUIDv7.
INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider, endpoint, num_images,
    size, parameters, end_user, cancel_if_client_leaves, created_at, deadline_at, started_at, settled_at, price, cost,
    cost_source, billable_units, unit_price, images, megapixels, answer, reason)
SELECT (lpad(to_hex(at / 1000), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
    md5('project ' || key % 100)::uuid, md5('key ' || key)::uuid, md5('request ' || n)::uuid,
    CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END, md5('replica')::uuid, 'image.generation', 'model/' || model,
    'fal', 'fal-ai/model/' || model, 1, (ARRAY['1024x1024', '1024x768', '512x512', '768x1024'])[size],
    '{"num_images":1,"num_inference_steps":28,"guidance_scale":3.5}', 'user ' || n % 10000, FALSE, at, at + 300000000, at,
    at + 3000000, CASE WHEN n % 50 = 0 THEN 0 ELSE 25000000 + model END, 20000000 + model, 'billed', 1000000000, 20000000,
    CASE WHEN n % 50 = 0 THEN 0 ELSE 1 END, 1048576000,
    '{"images":[{"url":"https://v3.fal.media/files/lion/abcdefghijklmnopqrst.jpeg","width":1024,"height":1024}],"seed":42}',
    'delivered'
FROM (
    SELECT n, 1793491200000000 + (n * 259200)::bigint AS at, (random() * 199)::int AS key, (random() * 59)::int AS model,
        1 + (random() * 3)::int AS size
    FROM generate_series(0::bigint, 9999999) n) made;

-- The sums that the trigger would have kept, had these rows been settled one by one.
INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels, price,
    cost, charges, charged_images, refunds, refunded)
SELECT settled_at - settled_at % 86400000000, project_id, api_key_id, model, source, COALESCE(size, ''),
    COUNT(*) FILTER (WHERE state = 'succeeded'), COUNT(*) FILTER (WHERE state <> 'succeeded'), SUM(images), SUM(megapixels),
    SUM(price), SUM(cost), COUNT(*) FILTER (WHERE price > 0), COALESCE(SUM(images) FILTER (WHERE price > 0), 0), 0, 0
FROM generations GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
    charged_images, refunds, refunded)
SELECT day, project_id, model, SUM(requests), SUM(failures), SUM(images), SUM(megapixels), SUM(price), SUM(cost),
    SUM(charges), SUM(charged_images), SUM(refunds), SUM(refunded)
FROM usage_days GROUP BY day, project_id, model;
VACUUM ANALYZE generations;
VACUUM ANALYZE usage_days;
VACUUM ANALYZE usage_day_models;
