"use strict";
(() => {
  const { columns, rows, base: usual, overview } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const form = $("form"), thead = document.querySelector("#board thead"), tbody = document.querySelector("#board tbody");
  const LEADS = [["model", "Model"], ["data", "Data"], ["epochs", "Epochs"], ["arch", "Backbone"], ["source", "Source"]];
  const FIELDS = ["q", "kind", "method", "data", "epochs", "arch", "task", "source", "base", "show"];
  const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const FIRST = columns.find((c) => c.main) ? { by: columns.find((c) => c.main).id, down: true } : { by: "model", down: false };
  let sort = { ...FIRST };

  rows.forEach((row, i) => {
    row.id = i;
    const notes = Object.values(row.cells).map((c) => c.note);
    row.text = [row.model, row.method, row.data, row.arch, row.source, row.sha256, ...new Set(notes)].join(" ").toLowerCase();
  });

  const fill = (name, values, texts = values) => {
    const select = form.elements[name];
    values.forEach((value, i) => select.add(new Option(texts[i], value)));
  };
  const distinct = (name) => [...new Set(rows.map((r) => r[name]).filter((v) => v !== ""))].sort(collator.compare);
  for (const name of ["method", "data", "epochs", "arch", "source"]) fill(name, distinct(name));
  fill("task", [...new Set(columns.map((c) => c.task))]);

  // What differences may be taken from: a measured model is told by its weights too, a published one by its name.
  const known = (row) => [row.model, row.sha256.slice(0, 8)].filter(Boolean).join(" ");
  const bases = new Map(rows.map((row) => [known(row), row]));
  const caption = (row) => (row.kind === "published" ? `${row.model} (published)`
    : [row.model, row.epochs && `${row.epochs} epochs`, row.sha256.slice(0, 8)].filter(Boolean).join(", "));
  const ordered = [...bases].sort(([, a], [, b]) => collator.compare(caption(a), caption(b)));
  fill("base", ordered.map(([name]) => name), ordered.map(([, row]) => caption(row)));

  const state = () => Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value]));

  // The view is the address: what differs from a fresh page stands behind the #.
  const remember = () => {
    const now = state(), words = new URLSearchParams();
    for (const name of FIELDS) if (now[name] && !(name === "base" && now.base === usual)) words.set(name, now[name]);
    if (sort.by !== FIRST.by || sort.down !== FIRST.down) words.set("sort", (sort.down ? "-" : "") + sort.by);
    const end = String(words); // .size is not in browsers before the middle of 2023
    history.replaceState(null, "", end ? `#${end}` : location.pathname + location.search);
  };
  const recall = () => {
    const words = new URLSearchParams(location.hash.slice(1));
    for (const name of FIELDS) {
      form.elements[name].value = words.get(name) ?? (name === "base" ? usual : "");
      if (form.elements[name].selectedIndex === -1) form.elements[name].value = name === "base" ? usual : "";
    }
    const by = words.get("sort");
    sort = by === null ? { ...FIRST } : { by: by.replace(/^-/, ""), down: by.startsWith("-") };
    if (!LEADS.some(([key]) => key === sort.by) && !columns.some((c) => c.id === sort.by)) sort = { ...FIRST };
  };

  // The baseline's numbers by column and class; none where a document has several.
  const baselines = (name) => {
    const base = bases.get(name), found = new Map();
    const names = [base.model, ...(base.kind === "measured" ? [base.method] : [])]; // of published rows
    for (const row of rows) {
      if (row.kind === "measured" ? known(row) !== name : !names.includes(row.model)) continue;
      for (const [id, cell] of Object.entries(row.cells)) {
        const key = `${id} ${cell.class}`;
        found.set(key, found.has(key) && found.get(key) !== cell.v ? undefined : cell.v);
      }
    }
    return found;
  };

  const shownColumns = (now, visible) => columns.filter((c) =>
    (now.task ? c.task === now.task : c.main) && visible.some((row) => c.id in row.cells));
  const matches = (now) => {
    const words = now.q.toLowerCase().split(/\s+/).filter(Boolean);
    return (row) => ["kind", "method", "data", "epochs", "arch", "source"].every((f) => !now[f] || String(row[f]) === now[f])
      && words.every((word) => row.text.includes(word));
  };
  const value = (row, id, now, base) => {
    const cell = row.cells[id];
    if (!cell) return undefined;
    if (!now.show) return cell.v;
    const other = base.get(`${id} ${cell.class}`);
    return other === undefined ? undefined : cell.v - other;
  };
  // A number that ends in a half goes to the even neighbour, as in the tables.
  const fixed = (number, digits = 2) => {
    const tie = Math.abs(number * 2 ** (digits + 1)) % 2 === 1, below = Math.trunc(number * 10 ** digits);
    return tie && below % 2 === 0 ? (below / 10 ** digits).toFixed(digits) : number.toFixed(digits);
  };
  const signed = (number, digits) => (number > 0 ? "+" : number < 0 ? "−" : "") + fixed(Math.abs(number), digits);
  const written = (row, id, now, base) => {
    const cell = row.cells[id], number = value(row, id, now, base);
    if (number === undefined) return "";
    const digits = cell.text ? (cell.text.split(".")[1] ?? "").length : 2;
    if (now.show) return signed(Number(fixed(number, digits)), digits);
    return cell.text ?? (cell.sd === undefined ? fixed(number) : `${fixed(number)} ± ${fixed(cell.sd)}`);
  };

  const CHUNK = 150; // rows that are drawn at once; more follow when they scroll near
  let view = { rows: [], columns: [], now: null, base: new Map(), tops: new Map(), drawn: 0 };

  const compare = (a, b) => {
    const lead = LEADS.some(([key]) => key === sort.by);
    const x = lead ? a[sort.by] : value(a, sort.by, view.now, view.base);
    const y = lead ? b[sort.by] : value(b, sort.by, view.now, view.base);
    const none = (v) => v === undefined || v === "";
    if (none(x) || none(y)) return none(x) - none(y) || a.id - b.id; // empty ones last, either way
    const order = lead ? collator.compare(x, y) : x - y;
    return (sort.down ? -order : order) || a.id - b.id;
  };

  const drawHead = () => {
    const arrow = (key) => (key === sort.by ? (sort.down ? " ▼" : " ▲") : "");
    const state = (key) => (key === sort.by ? (sort.down ? "descending" : "ascending") : "none");
    const cell = (key, top, below, lead) =>
      `<th scope="col" aria-sort="${state(key)}"${lead ? ' class="lead"' : ""}><button type="button" data-sort="${escape(key)}">` +
      `${escape(top)}${below ? `<small>${escape(below)}${arrow(key)}</small>` : arrow(key)}</button></th>`;
    thead.innerHTML = `<tr>${LEADS.map(([key, text]) => cell(key, text, "", true)).join("")}` +
      `${view.columns.map((c) => cell(c.id, c.task, c.metric, false)).join("")}</tr>`;
  };

  // Whose numbers a number is the best of: one class of measured ones, one backbone of published ones.
  const rivals = (row, id) => `${id} ${row.kind} ${row.kind === "measured" ? row.cells[id].class : row.backbone}`;
  const printed = (cell) => Number(cell.text ?? fixed(cell.v)); // what is printed alike is equally good, as in the tables
  const best = () => {
    const found = new Map();
    for (const row of view.rows) {
      for (const c of view.columns.filter((c) => c.id in row.cells)) {
        const key = rivals(row, c.id), { top, count } = found.get(key) ?? { top: 0, count: 0 };
        found.set(key, { top: Math.max(top, printed(row.cells[c.id])), count: count + 1 });
      }
    }
    return found;
  };

  const rowHtml = (row) => {
    const leads = LEADS.slice(1).map(([key]) => `<td class="lead" title="${escape(row[key])}">${escape(row[key])}</td>`).join("");
    const cells = view.columns.map((c) => {
      const cell = row.cells[c.id], text = written(row, c.id, view.now, view.base);
      if (!text) return "<td></td>";
      const { top, count } = view.tops.get(rivals(row, c.id)), first = count > 1 && top === printed(cell) ? "best" : "";
      const tone = view.now.show ? (text[0] === "+" ? "up" : text[0] === "−" ? "down" : "") : "";
      const spread = text.split(" ± ");
      const shown = spread.length > 1 ? `${spread[0]} <small>± ${spread[1]}</small>` : escape(text);
      const told = `${cell.n ? `n = ${cell.n}` : "published"}; ${cell.note}; ${row.source}`;
      return `<td class="${first} ${tone}"><button type="button" data-cell="${row.id} ${escape(c.id)}" title="${escape(told)}">${shown}</button></td>`;
    }).join("");
    const name = known(row);
    return `<tr class="${row.kind}"><th scope="row" title="${escape(name)}">${escape(name)}</th>${leads}${cells}</tr>`;
  };
  const more = (count = CHUNK) => {
    const next = view.rows.slice(view.drawn, view.drawn + count);
    tbody.insertAdjacentHTML("beforeend", next.map(rowHtml).join(""));
    view.drawn += next.length;
  };
  const arrange = () => {
    view.rows.sort(compare);
    drawHead();
    tbody.replaceChildren();
    view.drawn = 0;
    more();
    document.querySelector(".wide").scrollTop = 0;
  };

  const draw = () => {
    const now = state(), visible = rows.filter(matches(now));
    const shown = shownColumns(now, visible);
    const filled = visible.filter((row) => shown.some((c) => c.id in row.cells));
    view = { rows: filled, columns: shown, now, base: baselines(now.base), drawn: 0 };
    view.tops = best();
    // a search that finds nothing keeps the order for what is found next
    if (shown.length && !LEADS.some(([key]) => key === sort.by) && !shown.some((c) => c.id === sort.by)) sort = { by: shown[0].id, down: true };
    arrange();
    $("status").textContent = `${view.rows.length} of ${rows.length} rows, ${shown.length} columns` +
      (now.show ? `; differences from ${caption(bases.get(now.base))}, where it has one number under the same conditions` : "");
    remember();
  };

  const facts = (pairs) => `<dl>${pairs.filter(([, v]) => v !== "" && v !== undefined).map(([k, v]) =>
    `<dt>${escape(k)}</dt><dd>${escape(v)}</dd>`).join("")}</dl>`;
  const open = (row, id) => {
    const cell = row.cells[id], [task, metric] = id.split(/\.(.*)/s);
    const trials = row.trials.filter((t) => t.task === task);
    $("detail-title").textContent = `${row.model}, ${task} ${metric}: ${cell.text ?? fixed(cell.v)}`;
    const interval = cell.low === undefined ? "" : `${fixed(cell.low)} to ${fixed(cell.high)}`;
    const told = [["method", row.method], ["pretraining data", row.data], ["epochs", row.epochs], ["backbone", row.arch],
      ["weights' sha256", row.sha256], ["source", row.source], [row.kind === "measured" ? "protocol" : "note", cell.note],
      ["trials", cell.n], ["standard deviation", cell.sd === undefined ? undefined : fixed(cell.sd, 3)], ["95 % interval", interval]];
    const list = trials.map((t) => `<details><summary>seed ${t.seed}: ${escape(Object.entries(t.metrics).map(([k, v]) =>
      `${k} ${fixed(v)}`).join(", "))}</summary><p><code>bench results show ${escape(t.file)}</code></p>` +
      `<pre>${escape(JSON.stringify(t, null, 1))}</pre></details>`).join("");
    $("detail-body").innerHTML = facts(told) + list;
    $("detail").showModal();
  };

  // Copied away from the page, a measured row says which weights it is of and under which conditions it was measured.
  const leads = () => (view.rows.some((row) => row.kind === "measured") ? [...LEADS, ["conditions", "Conditions"]] : LEADS);
  const led = (row, key) => key === "model" ? known(row) : key !== "conditions" ? String(row[key]) : row.kind === "measured"
    ? [...new Set(view.columns.filter((c) => c.id in row.cells).map((c) => row.cells[c.id].note))].join("; ") : "";
  const table = () => [
    [...leads().map(([, text]) => text), ...view.columns.map((c) => `${c.task} ${c.metric}`)],
    ...view.rows.map((row) => [...leads().map(([key]) => led(row, key)),
      ...view.columns.map((c) => written(row, c.id, view.now, view.base))]),
  ].map((texts) => texts.map((text) => text.replace(/\s+/g, " ")));
  const markdown = () => {
    const [head, ...body] = table().map((cells) => cells.map((t) => t.replace(/[\\|`*<[~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)/g, "\\$&")));
    const rule = head.map((_, i) => (i < leads().length ? "---" : "--:"));
    return [head, rule, ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n") + "\n";
  };
  const latex = () => {
    const special = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "×": "$\\times$",
      "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
      "[": "{[}", "*": "{*}" }; // after \\ these two would be its argument and its star
    const plain = (t) => t.replace(/[\\~^±−×<>|#$%&_{}[*]/g, (c) => special[c] ?? `\\${c}`);
    const [head, ...body] = table().map((cells) => `${cells.map(plain).join(" & ")} \\\\`);
    return ["% \\usepackage{booktabs}", `\\begin{tabular}{${"l".repeat(leads().length)}${"r".repeat(view.columns.length)}}`, "\\toprule", head,
      "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  };
  const copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page opened from a file has no clipboard in some browsers
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    $("status").textContent = `${what} copied`;
  };

  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  thead.addEventListener("click", (event) => {
    const by = event.target.closest("[data-sort]")?.dataset.sort;
    if (!by) return;
    const number = !LEADS.some(([key]) => key === by);
    sort = { by, down: sort.by === by ? !sort.down : number }; // the best first
    arrange();
    thead.querySelector(`[data-sort="${CSS.escape(by)}"]`).focus();
    remember();
  });
  tbody.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-cell]")?.dataset.cell;
    if (cell) open(rows[Number.parseInt(cell, 10)], cell.slice(cell.indexOf(" ") + 1));
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the view stands where its address would, and would be lost
    document.querySelector(".wide").focus();
  });
  $("reset").addEventListener("click", () => { location.hash = ""; recall(); draw(); });
  $("share").addEventListener("click", () => copy(location.href, "Link"));
  $("markdown").addEventListener("click", () => copy(markdown(), "Markdown"));
  $("latex").addEventListener("click", () => copy(latex(), "LaTeX"));
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  });
  document.querySelector(".wide").addEventListener("scroll", (event) => {
    const { scrollTop, scrollHeight, clientHeight } = event.target;
    if (scrollTop + 3 * clientHeight > scrollHeight) more();
  }, { passive: true });
  addEventListener("beforeprint", () => more(Infinity));
  addEventListener("hashchange", () => { recall(); draw(); });
  if (matchMedia("(max-width: 40rem)").matches) $("controls").open = false;

  for (const { tasks, ranks } of overview) {
    $("overview").hidden = false;
    const body = ranks.map((r) => `<tr><th scope="row">${escape(r.model)}</th><td>${fixed(r.mean)}</td><td>${fixed(r.low)} to ${fixed(r.high)}</td></tr>`);
    $("overview").insertAdjacentHTML("beforeend", `<p>Over ${escape(tasks.join(", "))}; 1 is the best; the interval is from drawing trials again.</p>` +
      `<table><thead><tr><th class="lead" scope="col">Model</th><th scope="col">Mean rank</th><th scope="col">95 %</th></tr></thead><tbody>${body.join("")}</tbody></table>`);
  }
  recall();
  draw();
})();
