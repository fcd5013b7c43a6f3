"""Tables as one HTML page that stands alone: no script, no network, light and dark."""

from collections.abc import Sequence

from results.sheet import Cell, Sheet, shown

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ sheets[0].heading if sheets else "Tables" }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; font-size: 1.1rem; padding: 1.5rem 0 .5rem; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th.lead, td.lead { text-align: left; }
thead th { border-block: 1.5px solid; }
tbody tr:last-child td { border-bottom: 1.5px solid; }
tr.measured td { background: color-mix(in srgb, currentColor 6%, transparent); }
tr.part td { font-style: italic; text-align: left; }
p, li { max-width: 60rem; font-size: .9rem; }
</style>
</head>
<body>
{% for sheet in sheets %}
{% set heads, rows = sheet.grid() %}
<div class="wide"><table>
<caption>{{ sheet.heading }}</caption>
<thead><tr>{% for head in heads %}<th scope="col"{% if loop.index0 < sheet.leads|length %} class="lead"{% endif %}>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line, texts in rows %}
{% if line.cells %}
<tr class="{{ line.kind }}">
{%- for text in texts -%}
<td{% if loop.index0 < sheet.leads|length %} class="lead"{% endif %}>
{%- if is_cell(text) %}{% if text.best %}<b>{{ shown(text) }}</b>{% else %}{{ shown(text) }}{% endif %}{% else %}{{ text }}{% endif -%}
</td>
{%- endfor %}</tr>
{% else %}
<tr class="part"><td colspan="{{ heads|length }}">{{ texts[0] }}</td></tr>
{% endif %}
{% endfor %}
</tbody>
</table></div>
{% for text in sheet.intro %}<p>{{ text.replace("`", "") }}</p>
{% endfor %}
{% if sheet.notes %}<ul>{% for note in sheet.notes %}<li>{{ note.replace("`", "") }}</li>{% endfor %}</ul>{% endif %}
{% endfor %}
</body>
</html>
"""


def html(sheets: Sequence[Sheet]) -> str:
    """All tables in one page; measured rows are shaded, the best of a column is bold."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(PAGE)
    return page.render(sheets=sheets, shown=shown, is_cell=lambda text: isinstance(text, Cell)) + "\n"
