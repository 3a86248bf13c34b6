// Draws every chart of a report with the report's own copy of Vega: node report.mjs REPORT.html prints, a line a chart, its name, marks and warnings.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const page = readFileSync(process.argv[2], "utf8");
const window = { addEventListener() {}, removeEventListener() {} };
globalThis.window = window;
vm.runInThisContext(page.split("<script>")[1].split("</script>")[0]);
for (const [, name, text] of page.matchAll(/<script class="spec" type="application\/json" data-at="(\w+)">(.*?)<\/script>/gs)) {
  const warnings = [];
  const log = { warn: (...words) => (warnings.push(words.join(" ")), log), info: () => log, debug: () => log, error: (...words) => (warnings.push(words.join(" ")), log), level: () => log };
  const spec = JSON.parse(text);
  spec.width = 600;
  const { spec: compiled } = window.vegaLite.compile(spec, { logger: log });
  const view = new window.vega.View(window.vega.parse(compiled), { renderer: "none" });
  const svg = await view.toSVG();
  console.log(JSON.stringify({ name, marks: (svg.match(/<path/g) ?? []).length, warnings }));
}
