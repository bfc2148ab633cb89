// Looks at the console in headless Chromium: every page and form, as a person would use them. Its arguments: the
// gateway's address, an admin key, a project key, and the folder for the screenshots. Ends with status 1 and says what
// is wrong if a page loads something from elsewhere, writes an error to the browser's console, or has a serious problem
// of accessibility.
const { execFileSync } = require("node:child_process");
const { existsSync, mkdirSync, readFileSync } = require("node:fs");
const path = require("node:path");
const assert = require("node:assert/strict");
const { chromium } = require("playwright-core");

const [base, adminKey, projectKey, folder] = process.argv.slice(2);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const problems = [];

const api = async (where, key = adminKey) => {
  const answer = await fetch(base + where, { headers: { authorization: `Bearer ${key}` } });
  assert.equal(answer.status, 200, where);
  return answer.json();
};

const watch = (page) => {
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (!["data:", "blob:"].includes(url.protocol) && url.origin !== new URL(base).origin) {
      problems.push(`${page.url()} asks ${url.origin}`);
    }
  });
  page.on("console", (message) => {
    const expected = message.text().includes("the server responded with a status of 401");
    if (message.type() === "error" && !expected) problems.push(`${page.url()} says ${message.text()}`);
  });
  page.on("pageerror", (fault) => problems.push(`${page.url()} breaks: ${fault.message}`));
};

// Checks a page's accessibility and keeps its picture.
const look = async (page, name) => {
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  for (const violation of found.violations.filter((one) => ["serious", "critical"].includes(one.impact))) {
    problems.push(`${name}: ${violation.help} at ${violation.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(", ")}`);
  }
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (overflow > 0) problems.push(`${name}: the page is ${overflow} pixels too wide`);
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
};

const main = async () => {
  mkdirSync(folder, { recursive: true });
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  const context = await browser.newContext({ timezoneId: "Asia/Kolkata", locale: "en-GB" });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  watch(page);

  // Nothing is shown without a session; a wrong key opens nothing; afterwards the page that was wanted.
  await page.goto(`${base}/console/models`);
  assert.ok(page.url().includes("/console/sign-in"), page.url());
  await look(page, "sign-in");
  await page.fill("#key", "wrong-wrong-wrong-wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=alert]");
  await page.fill("#key", adminKey);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${base}/console/models`);
  await look(page, "models");
  const cookie = (await context.cookies()).find((one) => one.name === "imagegate_console");
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && cookie.expires > 0, JSON.stringify(cookie));
  assert.equal(await page.locator("tbody tr").count(), (await api("/v1/models")).data.length);

  // Empty states say what to do next.
  await page.goto(`${base}/console`);
  assert.ok((await page.textContent("main")).includes("Make an image in the"));
  await look(page, "overview-empty");

  // A project, its limits, its credit, a key.
  await page.goto(`${base}/console/projects`);
  await page.fill("#name", "Looking glass");
  await page.click("text=Make the project");
  await page.waitForSelector("h1:has-text('Looking glass')");
  const project = page.url().match(/proj_[0-9a-f]+/)[0];
  await page.fill("#spend_limit_usd", "12.50");
  await page.fill("#concurrent", "7");
  await page.click("text=Change the limits");
  await page.waitForSelector("text=The limits are changed.");
  await page.fill("#amount_usd", "25.00");
  await page.fill("#reason", "a first top-up");
  await page.click("text=Book it");
  await page.waitForSelector("text=The amount is booked.");
  let terms = await api(`/admin/v1/projects/${project}`);
  assert.deepEqual(
    [terms.spend_limit_usd, terms.limits.concurrent_generations, terms.balance_usd],
    ["12.500000000", 7, "25.000000000"],
  );
  await page.fill("#key-name", "a visitor");
  await page.fill("#budget", "3");
  await page.click("text=Make the key");
  await page.waitForSelector("#secret");
  const made = await page.textContent("#secret");
  await look(page, "key-shown-once");
  await api("/v1/billing/balance", made);
  await page.goto(`${base}/console/projects/${project}`);
  assert.ok(!(await page.content()).includes(made), "a key is shown twice");
  await look(page, "project");
  await page.click("[aria-label='Rotate a visitor']");
  await page.waitForSelector("#secret");
  const rotated = await page.textContent("#secret");
  await api("/v1/billing/balance", rotated);
  assert.notEqual(rotated, made);

  // The playground: a form from the model's file, the price before pressing, every problem, the picture.
  await page.goto(`${base}/console/playground?model=flux-realism`);
  await page.selectOption("#project", project);
  await page.fill("#p-prompt", "A T-Rex relaxing on a beach");
  await page.fill("#p-image_size", "1472x512");
  await page.waitForSelector("#quote .price");
  const quoted = await page.getAttribute("#quote [data-usd]", "data-usd");
  assert.equal(quoted, "0.035000000");
  const curl = await page.textContent("[data-snippet=curl]");
  await look(page, "playground-price");
  await page.fill("#p-num_images", "9");
  await page.waitForSelector("#quote .notice.bad");
  await page.fill("#p-num_images", "");
  await page.waitForSelector("#quote .price");
  await page.click("text=Make the image");
  await page.waitForSelector("#result [data-open=true]");
  await page.waitForSelector("#result img", { timeout: 120000 });
  const size = await page.$eval("#result img", async (image) => {
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  });
  assert.deepEqual(size, [1472, 512]);
  assert.equal(await page.getAttribute("#result [data-usd]", "data-usd"), "0.035000000");
  await look(page, "playground-picture");
  const id = await page.getAttribute("#result [data-run]", "data-run");

  // The same request as curl works when it is pasted.
  const pasted = execFileSync("bash", ["-c", `${curl} -sS`], { env: { ...process.env, IMAGEGATE_KEY: projectKey } });
  assert.equal(JSON.parse(pasted).images[0].width, 1472);

  // Every number equals the API's.
  const generation = await api(`/admin/v1/generations/${id}`);
  await page.goto(`${base}/console/generations`);
  await page.fill("#search", generation.fal_request_id);
  await page.keyboard.press("Enter");
  await page.waitForSelector(`code:has-text("${id}")`);
  assert.equal(await page.locator("tbody tr").count(), 1);
  await look(page, "generations");
  await page.fill("#search", id);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${base}/console/generations/${id}`);
  const shown = await page.$$eval("[data-usd]", (all) => all.map((one) => one.dataset.usd));
  for (const amount of [generation.price_usd, generation.cost_usd, generation.margin_usd, generation.hold_usd]) {
    assert.ok(shown.includes(amount), `${amount} is not among ${shown}`);
  }
  const hover = await page.$eval("time", (time) => [time.title, time.textContent, time.dateTime]);
  assert.match(hover[0], /UTC$/);
  const local = new Date(hover[2]).toLocaleString("en-GB", { timeZone: "Asia/Kolkata", dateStyle: "medium", timeStyle: "medium" });
  assert.equal(hover[1], local);
  await look(page, "generation");

  await page.goto(`${base}/console`);
  const margins = await api(`/admin/v1/margins?start_time=${Math.floor(Date.now() / 86400000) * 86400}`);
  const images = margins.data.reduce((sum, row) => sum + row.images, 0);
  assert.equal(await page.textContent(".tiles dd >> nth=0"), String(images));
  assert.ok((await page.locator("svg.chart rect").count()) >= 2);
  await look(page, "overview");

  await page.goto(`${base}/console/usage?show=spend`);
  const start = Math.floor(Date.now() / 86400000) * 86400;
  const usage = await api(`/v1/organization/usage/images?start_time=${start}&group_by=model`);
  assert.equal(await page.textContent("#all-images"), String(usage.data.flatMap((one) => one.results).reduce((sum, row) => sum + row.images, 0)));
  await look(page, "usage");
  const csv = await page.evaluate(async () => (await fetch(document.querySelector("a[download]").href)).text());
  assert.match(csv, /^day,.*\r\n\d{4}-\d\d-\d\d,/);
  await page.goto(`${base}/console/usage?model=there-is-no-such-model`);
  await page.waitForSelector(".empty");

  // An admin key is shown once, and revoked after a question.
  await page.goto(`${base}/console/admin-keys`);
  await look(page, "admin-keys");
  await page.fill("#name", "a colleague");
  await page.selectOption("#role", "operator");
  await page.click("text=Make the key");
  assert.match(await page.textContent("#secret"), /^sk-ig-admin-/);
  await look(page, "admin-key-made");
  await page.click("text=Back to the admin keys");
  page.once("dialog", (dialog) => dialog.dismiss());
  await page.click("[aria-label='Revoke a colleague']");
  await page.waitForTimeout(300);
  page.once("dialog", (dialog) => dialog.accept());
  await page.click("[aria-label='Revoke a colleague']");
  await page.waitForSelector("text=The key no longer works.");
  assert.equal(await page.locator("[aria-label='Revoke a colleague']").count(), 0);

  for (const name of ["holds", "drift", "audit"]) {
    await page.goto(`${base}/console/${name}`);
    await look(page, name);
  }
  assert.ok((await page.textContent("main")).includes("api_key.created"));

  // Without scripts the playground works as well.
  const plain = await (await browser.newContext({ javaScriptEnabled: false, storageState: await context.storageState() })).newPage();
  await plain.goto(`${base}/console/playground?model=flux-realism`);
  await plain.fill("#p-prompt", "without scripts");
  await plain.click("text=Make the image");
  await plain.waitForSelector("h2:has-text('Its way')");

  // A phone, in the dark, by keyboard: the first key leads to the content.
  const phone = await (await browser.newContext({
    viewport: { width: 360, height: 740 }, colorScheme: "dark", storageState: await context.storageState(),
  })).newPage();
  watch(phone);
  for (const [name, where] of [["overview", ""], ["generation", `/generations/${id}`], ["playground", "/playground"], ["usage", "/usage"], ["project", `/projects/${project}`], ["models", "/models"], ["admin-keys", "/admin-keys"]]) {
    await phone.goto(`${base}/console${where}`);
    await look(phone, `phone-dark-${name}`);
  }
  await phone.keyboard.press("Tab");
  assert.equal(await phone.evaluate(() => document.activeElement.textContent), "To the content");

  // Deleting and archiving ask first; afterwards the keys open nothing.
  await page.goto(`${base}/console/projects/${project}`);
  page.once("dialog", (dialog) => dialog.dismiss());
  await page.click("text=Archive the project");
  await page.waitForTimeout(300);
  assert.equal((await api(`/admin/v1/projects/${project}`)).status, "active");
  page.on("dialog", (dialog) => dialog.accept());
  await page.click("[aria-label='Delete a visitor'] >> nth=0");
  await page.waitForSelector("text=The key no longer works.");
  await page.click("text=Archive the project");
  await page.waitForSelector("text=The project is archived.");
  assert.equal((await api(`/admin/v1/projects/${project}`)).status, "archived");

  // Signing out ends the session on the server.
  await page.click("text=Sign out");
  await page.waitForURL(`${base}/console/sign-in`);
  const after = await fetch(`${base}/console`, { headers: { cookie: `imagegate_console=${cookie.value}` }, redirect: "manual" });
  assert.equal(after.status, 303);
  await browser.close();
  assert.deepEqual(problems, []);
  console.log("everything was seen");
};

main().catch((fault) => {
  console.error(fault);
  if (problems.length) console.error(problems);
  process.exit(1);
});
