// What the clients in the table have in common. GATEWAY and KEY say where and who, PICTURE is a PNG file.
const fs = require("node:fs");

exports.GATEWAY = process.env.GATEWAY;
exports.KEY = process.env.KEY;
exports.PROMPT = "a red fox";
exports.picture = () => fs.readFileSync(process.env.PICTURE);

// Runs the cases in their order and prints one line of JSON: what each gave, or the error as `read` sees it.
exports.run = async (cases, read) => {
  const seen = {};
  for (const [name, call] of Object.entries(cases)) {
    seen[name] = await call().catch((error) => ({ error: [error.constructor.name, ...read(error)] }));
  }
  console.log(JSON.stringify(seen));
};
