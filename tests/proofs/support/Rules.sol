// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Claim} from "./../../../contracts/types/Claims.sol";
import {Session} from "./../../../contracts/types/Sessions.sol";
import {Proof} from "./Proof.sol";

/// @title What one voucher does to any session, rule by rule
/// @notice Written from the protocol's page, in plain Solidity: whatever settles is held against it.
abstract contract Rules is Proof {
    struct State {
        Session session;
        Claim claim;
        uint256 earned;
        uint256 locked;
    }

    struct Numbers {
        uint256 throughSeq;
        uint256 amount;
    }

    function _state(bytes32 sessionId, address key) internal view returns (State memory state) {
        state.session = escrow.session(sessionId, key);
        state.claim = escrow.claimOf(sessionId);
        state.earned = _earnings(state.session.nodeId);
        state.locked = _locked(state.session.nodeId);
    }

    /// @dev Rules of every reachable state that other proofs show to be kept.
    function _assumeSound(State memory state) internal pure {
        Session memory held = state.session;
        vm.assume(_sound(held, state.claim) && _isKnown(held.flags));
        if (held.flags != 0) vm.assume(held.nodeId != 0);
    }

    function _assertState(State memory got, State memory wanted) internal pure {
        assertTrue(_same(got.session, wanted.session));
        assertTrue(_same(got.claim, wanted.claim));
        assertEq(got.earned, wanted.earned);
        assertEq(got.locked, wanted.locked);
    }

    /// @dev The state after a voucher, whoever brings it and when.
    function _after(State memory state, address by, Numbers memory voucher, uint256 time)
        internal
        view
        returns (State memory)
    {
        (Session memory held, Claim memory claimed) = (state.session, state.claim);
        (address settler,) = escrow.nodeAccount(held.nodeId);
        if (held.flags & CLOSED != OPEN || by != settler || time >= held.expiresAt + uint256(GRACE)) return state;
        if (voucher.amount > held.deposited || voucher.amount < held.paid) return state;
        if (voucher.throughSeq < held.throughSeq) return state;
        if (voucher.amount == held.paid && voucher.throughSeq == held.throughSeq) return state;
        if (held.flags & CLAIMED != 0) {
            if (claimed.pending > 0 && voucher.throughSeq < claimed.throughSeq) return state;
            state.locked -= claimed.pending + claimed.held;
            (claimed.pending, claimed.held, claimed.replaced) = (0, 0, claimed.replaced + 1);
            held.flags = OPEN;
        }
        state.earned += voucher.amount - held.paid;
        (held.paid, held.throughSeq) = (uint64(voucher.amount), uint32(voucher.throughSeq));
        return state;
    }
}
