'use strict';

/* Shows the overview: the machine and the colours that were chosen, plots when they come into sight, and where a commit's
   results come from. plotly.js is large, so it is fetched once, after the page is seen. */

window.bitnetOverview = (function () {
    var folder = 'overview/';
    var UNKNOWN = ['compiler', 'flags', 'instruction sets', 'processor', 'models'].map(function (name) {
        return [name, 'not recorded'];
    });
    var root = null;    /* the page's element, once it is set up */
    var plotly = null;  /* the promise of plotly.js */
    var data = {};      /* machine -> promise of its plots and commits */
    var drawn = [];     /* plots that exist: element, figure */
    var observer = null;

    /* ---- what is remembered ---- */

    function remembered(name) {
        try {
            return window.localStorage.getItem('bitnet-overview-' + name);
        } catch (error) {
            return null; /* a browser may forbid it: then nothing is remembered */
        }
    }

    function remember(name, value) {
        try {
            window.localStorage.setItem('bitnet-overview-' + name, value);
        } catch (error) {
            /* as above */
        }
    }

    /* ---- colours ---- */

    var dark_wanted = window.matchMedia('(prefers-color-scheme: dark)');

    function is_dark() {
        var chosen = remembered('theme');
        return chosen ? chosen === 'dark' : dark_wanted.matches;
    }

    function apply_theme() {
        document.documentElement.setAttribute('data-overview-theme', is_dark() ? 'dark' : 'light');
        root.querySelector('#overview-theme .word').textContent = is_dark() ? 'Light' : 'Dark';
        drawn.forEach(draw);
    }

    function toggle_theme() {
        remember('theme', is_dark() ? 'light' : 'dark');
        apply_theme();
    }

    function css(name) {
        return window.getComputedStyle(root).getPropertyValue(name).trim();
    }

    /* A copy in which every colour of the palette is the one for the dark. */
    function recoloured(value, palette) {
        if (Array.isArray(value)) {
            return value.map(function (item) { return recoloured(item, palette); });
        }
        if (value && typeof value === 'object') {
            var copy = {};
            Object.keys(value).forEach(function (key) { copy[key] = recoloured(value[key], palette); });
            return copy;
        }
        return typeof value === 'string' && palette[value] || value;
    }

    /* ---- plots ---- */

    function load_plotly() {
        plotly = plotly || new Promise(function (resolve, reject) {
            var script = document.createElement('script');
            script.src = folder + 'plotly.min.js?v=' + root.dataset.stamp;
            script.onload = function () { resolve(window.Plotly); };
            script.onerror = function () {
                plotly = null;
                reject(new Error('plotly.min.js could not be loaded'));
            };
            document.head.appendChild(script);
        });
        return plotly;
    }

    function load_data(machine) {
        data[machine] = data[machine] || window.fetch(folder + 'machine-' + machine + '.json?v=' + root.dataset.stamp)
            .then(function (answer) {
                if (!answer.ok) {
                    throw new Error('machine-' + machine + '.json: ' + answer.status);
                }
                return answer.json();
            })
            .catch(function (error) {
                delete data[machine];
                throw error;
            });
        return data[machine];
    }

    function machine_of(element) {
        return element.closest('.machine').dataset.machine;
    }

    function begin(element) {
        if (element.dataset.begun) {
            return;
        }
        element.dataset.begun = 'yes';
        Promise.all([load_plotly(), load_data(machine_of(element))]).then(function (found) {
            var plot = { element: element, figure: found[1].plots[element.dataset.plot], palette: {}, theme: '' };
            found[1].palette.forEach(function (pair) { plot.palette[pair[0]] = pair[1]; });
            drawn.push(plot);
            return draw(plot);
        }).catch(function (error) {
            delete element.dataset.begun;
            element.textContent = 'This plot could not be drawn: ' + error.message;
        });
    }

    /* Draws a plot that is seen, in the colours of now; what is hidden has no width, and waits. */
    function draw(plot) {
        var theme = is_dark() ? 'dark' : 'light';
        if (!plot.element.offsetWidth) {
            return null;
        }
        if (plot.theme === theme) {
            return window.Plotly.Plots.resize(plot.element);
        }
        var first = !plot.theme;
        plot.theme = theme;
        var figure = recoloured(plot.figure, theme === 'dark' ? plot.palette : {});
        var layout = figure.layout;
        layout.paper_bgcolor = layout.plot_bgcolor = 'rgba(0,0,0,0)';
        layout.font = { family: css('--font'), size: 12, color: css('--ink') };
        layout.hoverlabel = Object.assign({ bgcolor: css('--card'), bordercolor: css('--line') }, layout.hoverlabel);
        layout.hoverlabel.font = { family: css('--font'), size: 13, color: css('--ink') };
        ['xaxis', 'yaxis'].forEach(function (name) {
            layout[name] = Object.assign({ gridcolor: css('--line'), linecolor: css('--line') }, layout[name]);
        });
        layout.height = figure.height;
        layout.autosize = true;
        layout.dragmode = false; /* a finger that scrolls must not zoom */
        var done = window.Plotly.react(plot.element, figure.data, layout, { displayModeBar: false, responsive: true });
        if (first) {
            plot.element.on('plotly_click', open_graph);
        }
        return done;
    }

    /* asv's graph of what a point stands for. */
    function open_graph(event) {
        var address = event.points[0].customdata;
        if (address) {
            window.location.hash = address;
        }
    }

    function watch() {
        var elements = root.querySelectorAll('.machine:not([hidden]) .plot');
        observer = observer || new IntersectionObserver(function (entries) {
            entries.forEach(function (entry) {
                if (entry.isIntersecting) {
                    observer.unobserve(entry.target);
                    begin(entry.target);
                }
            });
        }, { rootMargin: '400px' });
        elements.forEach(function (element) {
            if (!element.dataset.begun) {
                observer.observe(element);
            }
        });
    }

    /* ---- where results come from ---- */

    function entry(list, name, text) {
        var term = document.createElement('dt');
        var words = document.createElement('dd');
        term.textContent = name;
        words.textContent = text;
        list.append(term, words);
    }

    function tell(short, words, facts) {
        var dialog = root.querySelector('#overview-provenance');
        var list = dialog.querySelector('dl');
        dialog.querySelector('h2').textContent = 'Commit ' + short;
        dialog.querySelector('p').textContent = words;
        list.replaceChildren();
        facts.forEach(function (pair) { entry(list, pair[0], pair[1]); });
        if (!dialog.open) {
            dialog.showModal();
        }
    }

    function show_commit(button) {
        var short = button.dataset.commit;
        load_data(machine_of(button)).then(function (found) {
            var commit = found.commits[short] || { subject: '', date: '', facts: [] };
            tell(short, [commit.date, commit.subject].filter(Boolean).join(' · '), commit.facts.length ? commit.facts : UNKNOWN);
        }, function (error) {
            tell(short, 'Where its results come from could not be loaded: ' + error.message, []);
        });
    }

    /* ---- the page ---- */

    function choose_machine(machine) {
        root.querySelectorAll('.machine').forEach(function (element) {
            element.hidden = element.dataset.machine !== machine;
        });
        watch();
        drawn.forEach(draw);
    }

    function set_up(element) {
        root = element;
        drawn = [];
        root.querySelector('#overview-theme').addEventListener('click', toggle_theme);
        root.addEventListener('click', function (event) {
            var button = event.target.closest('.commit');
            if (button) {
                show_commit(button);
            }
        });
        var chooser = root.querySelector('#overview-machine');
        if (chooser) {
            chooser.addEventListener('change', function () {
                var name = chooser.selectedOptions[0].textContent;
                remember('machine', name);
                choose_machine(chooser.value);
            });
            Array.prototype.forEach.call(chooser.options, function (option) {
                if (option.textContent === remembered('machine')) {
                    chooser.value = option.value;
                    choose_machine(option.value);
                }
            });
        }
        dark_wanted.addEventListener('change', function () {
            if (document.documentElement.hasAttribute('data-overview-theme')) {
                apply_theme();
            }
        });
    }

    function show(element) {
        element = element.jquery ? element[0] : element;
        if (element.id !== 'overview') {
            element = element.querySelector('#overview');
        }
        if (root !== element) {
            set_up(element);
        }
        apply_theme();
        watch();
    }

    function hide() {
        document.documentElement.removeAttribute('data-overview-theme'); /* asv's pages have colours of their own */
        var dialog = root && root.querySelector('dialog[open]');
        if (dialog) {
            dialog.close();
        }
    }

    return { show: show, hide: hide };
}());
