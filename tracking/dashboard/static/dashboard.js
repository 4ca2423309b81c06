'use strict';

/* The overview as one of asv's pages, and the first. asv knows a page by its name and calls what is registered for it;
   it hides its own pages when another is shown, but not ours. */

(function () {
    var title = document.title; /* asv has another, and sets it later */
    var page = null;            /* the promise of the page's content, once asked for */

    /* An address without a place in it means the overview; the grid is "#/". Says nothing to the "back" button. */
    function start_with_overview() {
        if (window.location.hash.length <= 1) {
            window.location.replace('#/overview');
        }
    }

    function is_overview() {
        return $.asv.parse_hash_string(window.location.hash).location[0] === 'overview';
    }

    /* Scripts within the fragment are not run: its own are loaded by index.html. */
    function load() {
        return $.ajax({
            url: 'overview/overview.html?timestamp=' + $.asv.main_timestamp,
            dataType: 'html',
            cache: true
        }).then(function (fragment) {
            var display = document.getElementById('overview-display');
            display.innerHTML = fragment;
            return document.getElementById('overview');
        });
    }

    function show() {
        $('#title').empty(); /* the entry beside it says so already */
        $('#overview-display').show();
        page = page || load();
        page.done(function (element) {
            if (is_overview()) {
                window.bitnetOverview.show(element);
            }
        }).fail(function () {
            page = null;
            $.asv.ui.network_error();
        });
    }

    function hide() {
        $('#overview-display').hide();
        if (page && page.state() === 'resolved') {
            window.bitnetOverview.hide();
        }
    }

    start_with_overview();

    $(window).on('hashchange', function () {
        start_with_overview();
        if ($.asv && !is_overview()) {
            hide();
        }
    });
    $(document).ajaxComplete(function () {
        document.title = title;
    });
    $(document).ready(function () {
        $.asv.register_page('overview', show);
    });
}());
