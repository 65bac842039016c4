"""Tables: what they say, and that they are read back."""

import numpy as np
import pytest
from made_up import log, swept, trained

from ddpg_jax.results.csv_files import configs_csv, episodes_csv, metrics_csv
from ddpg_jax.results.history import History


def sweep_of_two():
    """Two configurations, seeds 5 and 6, of which the second configuration has been evaluated only once."""
    histories = [History(np.array([5, 6])), History(np.array([7, 8]), noise_scale=np.array([0.1, 0.2]))]
    for history, num_chunks in zip(histories, (2, 1), strict=True):
        for i in range(num_chunks):
            end = {"episode_length": [[0, 0, 0, 0, 5]] * 2, "episode_return": [[0, 0, 0, 0, 1 / 3]] * 2}
            history.add_chunk(log(2, 5, **end))
            history.add_evaluation(np.array([1 / 3, -1e-12]) * history.env_steps, 4 + 10 * i)
    return History.join(histories)


def test_tables_are_sorted_by_step_and_agent_and_hold_nine_digits():
    lines = metrics_csv(sweep_of_two(), range(5, 7), 2).splitlines()
    assert lines[0] == "agent,config,seed,env_steps,updates,eval_return,train_return,critic_loss,actor_loss,q_mean"
    assert [line.split(",")[:5] for line in lines[1:]] == [
        [*"50554"], [*"60654"], [*"71554"], [*"81654"], [*"505", "10", "14"], [*"606", "10", "14"],
    ]  # fmt: skip
    assert lines[1].split(",")[5:] == ["1.66666667", "0.333333343", "0", "0", "0"]
    assert lines[2].split(",")[5] == "-5e-12"
    episodes = episodes_csv(sweep_of_two(), range(5, 9)).splitlines()
    assert episodes[0] == "agent,episode,env_steps,return,length,noise_scale"
    assert episodes[1] == "5,0,5,0.333333343,5,"  # the scale of its noise is not known
    assert episodes[3] == "7,0,5,0.333333343,5,0.1"
    rows = [line[: line.index(",0.3")] for line in episodes[1:]]
    assert rows == ["5,0,5", "6,0,5", "7,0,5", "8,0,5", "5,1,10", "6,1,10"]


def test_tables_are_read_back():
    history = sweep_of_two()
    history.diverged = {6: 10}
    texts = metrics_csv(history, range(5, 7), 2), episodes_csv(history, range(5, 7), 2)
    read = History.from_tables(*texts, history.diverged)
    assert (metrics_csv(read, range(5, 7), 2), episodes_csv(read, range(5, 7), 2)) == texts
    assert (read.agents.tolist(), read.env_steps, read.diverged) == ([5, 6, 7, 8], 10, {6: 10})
    np.testing.assert_allclose(read.metrics, history.metrics, rtol=1e-8)
    assert np.isnan(read.clipped_targets()).all()
    clipped = np.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(History.from_tables(*texts, {}, clipped).clipped_targets(), clipped)
    np.testing.assert_array_equal(*(np.concatenate(each.training_returns()) for each in (read, history)))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("agent,env_steps\n0,100,5\n", "metrics.csv is damaged"),
        ("agent,env_steps\n0,x\n", "metrics.csv is damaged: could not convert"),
        ("", "a table has no column 'agent'"),
    ],
)
def test_damaged_table_is_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        History.from_tables(metrics, "agent,episode,env_steps,return,length,noise_scale\n", {})


def test_configurations_are_ranked_in_their_table():
    _, summary = trained([[-130, -131, -132], [-120, -121, -122]], swept(hidden_sizes=[(8, 8), (16,)]))
    assert configs_csv(summary).splitlines() == [
        "rank,config,hidden_sizes,final_return_iqm,ci95_low,ci95_high,worst,num_solved,num_diverged,"
        "against_best_iqm,against_best_low,against_best_high,p_adjusted",
        "1,1,16,-121,,,-122,3,0,0,,,1",
        "2,0,8x8,-131,,,-132,1,0,-10,,,0.25",
    ]
