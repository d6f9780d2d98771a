"""Makes the three CSV files beside it from two public packages; SOURCES.md says which.

    python3 make.py BOKEH_SAMPLEDATA_DIR VEGA_DATASETS_DIR

Both arguments are unpacked packages. The output is plain CSV without quotes, so that the
dataset service can read it with `split(',')`; a cell that would need quotes stops the run.
"""

import csv
import gzip
import sys
from pathlib import Path

HERE = Path(__file__).parent
PRICES_SINCE = "2011-03-01"  # two years are enough to chart, and keep the file near 100 kB
DRIVES = {"f": "front", "r": "rear", "4": "four"}
FUELS = {"r": "regular", "p": "premium", "d": "diesel", "e": "ethanol", "c": "gas"}


def write(name, header, rows):
    rows = sorted(rows)
    assert not any("," in cell or '"' in cell for row in rows for cell in row)
    lines = [",".join(row) for row in [header, *rows]]
    (HERE / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(name, len(rows), "rows")


def prices(bokeh):
    with gzip.open(bokeh / "bokeh_sampledata/_data/stocks.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["Date"] >= PRICES_SINCE:
                yield [row[name] for name in ("Ticker", "Date", "Open", "High", "Low", "Close", "Volume")]


def cars(bokeh):
    with open(bokeh / "bokeh_sampledata/_data/auto-mpg2.csv", newline="") as file:
        for row in csv.DictReader(file):
            number = f"epa-{int(row['']):03}"
            plain = [row[name] for name in ("manufacturer", "model", "year", "class", "displ", "cyl", "trans")]
            coded = [DRIVES[row["drv"]], FUELS[row["fl"]]]
            yield plain[:2] + [number] + plain[2:] + coded + [row["cty"], row["hwy"]]


def weather(vega):
    with open(vega / "data/weather.csv", newline="") as file:
        for row in csv.DictReader(file):
            yield list(row.values())


def main():
    bokeh, vega = map(Path, sys.argv[1:3])
    write("prices.csv", ["symbol", "date", "open", "high", "low", "close", "volume"], prices(bokeh))
    header = "make,model,id,year,class,displacement,cylinders,transmission,drive,fuel,cityMpg,highwayMpg"
    write("cars.csv", header.split(","), cars(bokeh))
    header = "location,date,precipitation,tempMax,tempMin,wind,weather"
    write("weather.csv", header.split(","), weather(vega))


main()
